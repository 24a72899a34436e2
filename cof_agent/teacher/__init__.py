"""The teacher's roles: planner, locator, describer, verifier, summariser. `cof_agent.teacher.graph` lets them play together."""
