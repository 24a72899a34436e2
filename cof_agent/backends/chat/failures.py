"""What it means to us that a server, or the client of a provider, fails: whose fault it is, and whether asking again helps."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from cof_agent.backends.chat.connections import Unreadable
from cof_agent.backends.secrets import hidden_addresses
from cof_agent.errors import InputError, said
from cof_agent.policy import CONTEXT, PolicyError

SOON = (408, 409, 425)  # worth another try, beside what is wrong with the server itself
OUTAGE = (429, 502, 503, 504, 520, 521, 522, 523, 524, 529)  # overloaded, or not there for now
FILTERED = (
    "content_filter",
    "content_policy_violation",
)  # codes of a refusal to show what a model wrote, or to read a prompt
LONGEST = 300  # characters of a server's own words
SAID = 10_000  # characters in which they are looked for
_PROXY = "the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY)"
AWAY = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, socket.EAI_AGAIN}


def of_status(status: int, body: Any, headers: Mapping[str, str], model: str, where: str) -> Exception:
    """A reply that is no success. body: its JSON, or its text."""
    words, code = _words(body), _code(body)
    if code in FILTERED or (status == 403 and _FLAGGED.search(words)):
        return PolicyError(f"content filter: {words}", transient=False)
    if status in (401, 403):
        return InputError(f"{where} refuses the API key for {model}: {words}")
    if status == 407:
        return InputError(f"{_PROXY} asks for a name and a password on the way to {where}.")
    if status == 402 or code == "insufficient_quota":
        return InputError(f"{where} asks for a payment: {words}")
    if status == 404 and _NO_ENDPOINT.search(words):
        return InputError(f"{where} has no endpoint for {model} that takes what it is asked: {words}")
    if (
        status == 404 and (_is_page(body) or not _is_about_model(words, model))
    ) or "unexpected endpoint" in words.lower():
        return InputError(f"there is no interface of OpenAI's at {where}; its address mostly ends in /v1.")
    if status == 404:
        return InputError(f"{where} knows no model {model}: {words}")
    if 300 <= status < 400 and headers.get("location"):
        there = hidden_addresses(_one_line(headers["location"]))[:LONGEST]
        return PolicyError(
            f"{where} redirects to {there}, but no question is sent there; if that is your server, name it with --base-url.",
            transient=False,
        )
    if code == "context_length_exceeded" or (status in (400, 413, 422, 500) and _OVERLONG.search(words)):
        return PolicyError(f"{CONTEXT} {where} answered with status {status}: {words}", transient=False)
    after = retry_after(headers)
    asks = f" It asks to wait {after:g} seconds." if after else ""
    return PolicyError(
        f"{where} answered with status {status}: {words}{asks}",
        transient=status >= 500 or status in SOON,
        outage=status in OUTAGE or (after is not None and status >= 500),
        after=after,
    )


def _is_about_model(words: str, model: str) -> bool:
    """Whether a refusal speaks of the model, as of one that is not there; else it is the address that is not there."""
    said = words.lower()
    return "model" in said or model.lower() in said


_FLAGGED = re.compile(r"moderation|flagged", re.IGNORECASE)  # OpenRouter has no other code for it than 403
_NO_ENDPOINT = re.compile(r"no endpoints? (?:found|available)", re.IGNORECASE)
"""How OpenRouter, and gateways in its manner, say with a 404 that a model takes no images, no tools, or that there is none."""
_OVERLONG = re.compile(
    r"context[ _](?:length|window|size)|maximum context|prompt (?:is )?too long|input is too long"
    r"|longer than the maximum model length|exceeds the maximum number of tokens|max_tokens must be at least 1, got -",
    re.IGNORECASE,
)
"""How servers say that a conversation has no room: vLLM, SGLang, LMDeploy, llama.cpp, Ollama, TGI, OpenAI, Gemini."""


def _is_page(body: Any) -> bool:
    """Whether a reply is a page for browsers, or says no more than that there is nothing."""
    text = body.strip().lower() if isinstance(body, str) else ""
    return text.startswith(("<!doctype", "<html")) or body in ({"detail": "Not Found"}, {"error": "not found"})


def of_error(error: Exception, model: str, where: str) -> Exception:
    """What an error of an HTTP library or of a provider's client means.

    The clients share no exception types, but nearly all of theirs carry an HTTP status.
    """
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        response = getattr(error, "response", None)
        body = getattr(error, "body", None) or {"message": said(error)}
        return of_status(status, body, getattr(response, "headers", None) or {}, model, where)
    first = _first_cause(error)  # the clients' own kinds mislead: OpenAI's takes a refused connection for a timeout
    names = " ".join(kind.__name__ for one in (first, error) for kind in type(one).__mro__)
    away = isinstance(first, OSError) and first.errno in AWAY  # as while it starts
    if "Proxy" in names:
        if getattr(error, "status", None) == 407:
            return of_status(407, "", {}, model, where)
        words = _sentence(first) if isinstance(first, OSError) else _sentence_of(_told(first))
        return PolicyError(
            f"{_PROXY} does not lead to {where}: {words} NO_PROXY names hosts that need none.", outage=away
        )
    if isinstance(first, ssl.SSLError) or "Certificate" in names:
        return PolicyError(f"cannot reach {where} safely: {_sentence(first)}", transient=False)
    if "Timeout" in names:
        return PolicyError(f"{where} did not answer in time; is the server overloaded?")
    if "Payload" in names or "IncompleteRead" in names or "RemoteProtocolError" in names:
        return unreadable(f"the reply is cut off or garbled: {_told(first)}", where)
    if any(kind in names for kind in ("OSError", "EOFError", "Disconnected", "ConnectionError", "TransportError")):
        return PolicyError(f"cannot reach {where}: {_sentence(first)} Is the server running?", outage=away)
    return unreadable(f"{type(error).__name__}: {_told(error)}", where)


def unreadable(reason: str, where: str) -> PolicyError:
    """What came is no reply, or one that says nothing; the next may be one."""
    return PolicyError(f"{where} gave no answer that can be read: {_sentence_of(reason)}")


def decoded(body: bytes) -> Any:
    """The JSON of a reply.

    Raises:
        Unreadable: if it is none; what it is instead is said.
    """
    try:
        return json.loads(body, parse_int=_whole)
    except RecursionError:
        raise Unreadable("its JSON is nested too deeply") from None
    except ValueError as error:
        if not body.strip():
            raise Unreadable("it is empty") from None
        start = hidden_addresses(_one_line(body[:SAID].decode("utf-8", "replace")))[:80]
        raise Unreadable(f"it is no JSON ({type(error).__name__}), but begins {start!r}") from None


def _whole(digits: str) -> float:
    """A number of thousands of digits, which Python refuses to read, costs no more than its own field."""
    return int(digits) if len(digits) <= LONGEST else math.inf


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, by a number or a date; None where it does not, or not readably."""
    text = str(headers.get("retry-after") or "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (TypeError, ValueError):
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    return max(0.0, round(seconds, 1)) if math.isfinite(seconds) else None


def _words(body: Any) -> str:
    """What a reply says of its error, in whatever form, as one short sentence."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = next((error[name] for name in ("message", "detail", "msg") if error.get(name)), error)
    return _sentence_of(error if isinstance(error, str) else repr(error)) if error else "it does not say why."


def _code(body: Any) -> str | None:
    error = body.get("error", body) if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _told(error: BaseException) -> str:
    """What it says; aiohttp's errors of HTTP put a status before it that no server sent."""
    message = getattr(error, "message", None)
    return message if isinstance(message, str) and message else said(error)


def _sentence(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    known = os.strerror(number) if isinstance(number, int) and number > 0 else None
    return _sentence_of(known or getattr(error, "strerror", None) or said(error))


def _sentence_of(text: str) -> str:
    return f"{hidden_addresses(_one_line(text[:SAID]))[:LONGEST].rstrip('. ')}."


def _one_line(text: str) -> str:
    return " ".join(text.split())
