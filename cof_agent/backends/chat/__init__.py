"""Served chat models: own servers of OpenAI's kind, and the providers that LangChain knows."""

from cof_agent.backends.chat.policy import ChatPolicy, connect

__all__ = ["ChatPolicy", "connect"]
