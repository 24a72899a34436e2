"""Served chat models: own servers of OpenAI's kind, and the providers that LangChain knows."""

from cof_agent.backends.chat.policy import ChatPolicy, Connection, connect, reach

__all__ = ["ChatPolicy", "Connection", "connect", "reach"]
