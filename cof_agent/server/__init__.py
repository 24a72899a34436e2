"""The agent behind one server: OpenAI's chat completions, MCP, and a page. `cof serve` starts it, `cof mcp` serves MCP alone.

Needs the extra `serve`. `backends.serve` is something else: it serves a bare checkpoint.
"""
