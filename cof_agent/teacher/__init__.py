"""The teacher's roles: planner, locator, describer, verifier, summariser. `cof_agent.graphs.search` lets them play together."""
