"""Requests that are refused: the status, and the sentence in the form in which OpenAI's clients expect it."""

from __future__ import annotations

from typing import Any

from cof_agent.backends.secrets import hidden_addresses

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
"""OpenAI's types of errors by status; all others are `server_error`."""


class Refusal(Exception):
    """A request that is not answered: an HTTP status, the sentence, and what the field of the request is called, if it is
    one field."""

    def __init__(self, status: int, sentence: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(sentence)
        self.status, self.code, self.param = status, code, param

    @property
    def headers(self) -> dict[str, str]:
        """What the reply says beside the body."""
        return {503: {"retry-after": "2"}, 401: {"www-authenticate": "Bearer"}}.get(self.status, {})

    def body(self) -> dict[str, Any]:
        """The body of the reply."""
        kind = KINDS.get(self.status, "server_error")
        sentence = hidden_addresses(str(self))
        return {"error": {"message": sentence, "type": kind, "code": self.code, "param": self.param}}


FAULT = Refusal(500, "the server failed at this request; its log says why.")
"""What a client hears of a fault of the program."""
