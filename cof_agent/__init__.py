"""Chain-of-Focus: agentic visual search in large images.

Importing this package loads neither torch nor trl; heavy imports live in `cof_agent.backends`, `sft` and `rl`.
"""

__version__ = "0.1.0"
