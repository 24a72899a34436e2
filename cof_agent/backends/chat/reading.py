"""What a server's reply says: a message, or the reason why there is none. No single odd field costs a good answer."""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from cof_agent import protocol
from cof_agent.backends.chat.failures import of_status, unreadable
from cof_agent.policy import Completion, PolicyError
from cof_agent.protocol.dialects import dialect, ours
from cof_agent.trajectory import Answer, Tokens

CALLED = ("tool_calls", "tool_call", "function_call", "tool_use")
"""Why a message ends that calls a tool, in lower case."""
WHOLE = (
    *("stop", *CALLED, "end_turn", "stop_sequence", "eos", "eos_token"),
    *("complete", "completed", "finished", "done", "unload", "normal"),
)
"""Why a message ends that is whole, in lower case; it may also not be said. Any other reason has cut it off, as `length` has."""
FILTERED = (
    *("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii", "image_safety"),
    *("sensitive", "guardrail_intervened"),
)
BROKEN_OFF = ("error", "abort", "cancelled", "network_error", "insufficient_system_resource")
"""Of OpenRouter, SGLang, vLLM, Zhipu and DeepSeek: no message has an end then."""
REFUSED = "refusal"
TEXT = 2**20  # characters of a message that are still taken for one
MOST_TOKENS = 2**53
LEAST_LOGPROB = 1e9  # below zero; servers write -9999 for minus infinity


def is_cut(reason: Any) -> bool:
    """Whether a message that ended for this reason, as the server or provider names it, lacks its end."""
    return reason not in (None, "") and str(reason).lower() not in WHOLE


def completion(reply: Any, model: str, where: str, stop: str = "") -> Completion:
    """The message in the decoded JSON of a chat completion. stop: a text that ends it and stays in it.

    Raises:
        PolicyError: if there is none; its text begins with `refused:` or `content filter:` where the server says so.
        InputError: if it is an error of the key, in spite of its status.
    """
    if not isinstance(reply, dict):
        raise unreadable(f"it is no object, but {type(reply).__name__}", where)
    if (reply.get("error") or reply.get("object") == "error") and not reply.get("choices"):
        raise _of_error_inside(reply, model, where)
    choice = _first(reply.get("choices"), where)
    message, reason = choice.get("message"), choice.get("finish_reason")
    if choice.get("error"):
        raise _of_error_inside(choice, model, where)
    if str(reason).lower() in BROKEN_OFF:
        raise unreadable(f"it ended with {reason!r}", where)
    if not isinstance(message, dict):
        raise unreadable("its first choice holds no message", where)
    text = message_text(message, reason, where)
    cut = is_cut(reason) or (reason is not None and _ends_within(message))
    return Completion(
        protocol.stopped(text, stop, choice.get("stop_reason")) if stop and not cut else text,
        tokens_of(reply.get("usage")),
        cut,
        logprob_of(choice.get("logprobs")),
    )


def message_text(message: dict[str, Any], reason: Any, where: str) -> str:
    """The literal text of a message; a thought and calls that the server has taken out of it are put back.

    reason: why the message ended, as the server or provider names it.

    Raises:
        PolicyError: if it has no text.
    """
    refusal = message.get("refusal")
    if reason == REFUSED or (isinstance(refusal, str) and refusal):
        raise PolicyError(f"refused: {str(refusal or 'the model declines to answer')[:300]}", transient=False)
    if str(reason).lower() in FILTERED:
        raise PolicyError(f"content filter: {where} held the answer back.", transient=False)
    text, calls = text_of(message.get("content")), _calls(message)
    if text is None and is_cut(reason):
        text = ""  # it was cut off before its first word
    if str(reason).lower() in CALLED and not calls and _only_speaks(text or ""):
        raise unreadable(f"it ended with {reason!r}, but it has no call", where)
    if calls and text is not None and protocol.repeats(text, calls):
        calls = []
    thought = "" if protocol.begins_anew(text or "") else _thought(message)
    if text is None and not thought and not calls:
        raise unreadable("its message holds no text", where)
    if thought and not (text or "").strip() and not calls and not is_cut(reason):
        raise PolicyError(
            f"{where} put everything into reasoning_content and nothing into content; "
            "start the server without --reasoning-parser.",
            transient=False,
        )
    cut = is_cut(reason) or _ends_within(message)
    whole = protocol.put_together(thought, text or "", calls, cut=cut) if thought or calls else text or ""
    if len(whole) > TEXT:
        raise PolicyError(f"{where} wrote {len(whole):,} characters, more than any turn has.", transient=False)
    return whole.encode("utf-8", "replace").decode()  # half a surrogate pair is no text


def _only_speaks(text: str) -> bool:
    """Whether a text has words, but neither a call, in tags or without, nor a marked answer."""
    return protocol.says_nothing(text, ours()) and isinstance(protocol.read(text, dialect("native"))[0], Answer)


def _ends_within(message: dict[str, Any]) -> bool:
    """Whether the last call that a server has taken out of a message ends within its arguments: vLLM says `tool_calls` then."""
    calls = _calls(message)
    return bool(calls) and calls[-1][1].count("[") > calls[-1][1].count("]")


def text_of(content: Any) -> str | None:
    """The text of a message's content: a string, or the text among its parts; None where there is none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    found = [part for part in parts if isinstance(part, str)]
    return "".join(found) if found else None


def tokens_of(usage: Any) -> Tokens:
    """The server's counts; None for each that is none."""
    told = usage if isinstance(usage, dict) else {}
    return Tokens(count(told.get("prompt_tokens")), count(told.get("completion_tokens")))


def count(value: Any) -> int | None:
    """A number of tokens, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MOST_TOKENS and value == int(value) else None


def logprob_of(logprobs: Any) -> float | None:
    """The mean over the tokens; None where not each has one."""
    told = logprobs.get("content") if isinstance(logprobs, dict) else None
    entries = told if isinstance(told, list) else []
    values = [entry.get("logprob") if isinstance(entry, dict) else None for entry in entries]
    numbers = [float(value) for value in values if isinstance(value, int | float) and abs(value) <= LEAST_LOGPROB]
    return fmean(numbers) if numbers and len(numbers) == len(values) else None


def _first(choices: Any, where: str) -> dict[str, Any]:
    if not isinstance(choices, list) or not choices:
        raise unreadable("it holds no choices", where)
    if not isinstance(choices[0], dict):
        raise unreadable("its first choice is no object", where)
    return choices[0]


def thought_field(reply: Any) -> str:
    """The field of a chat completion that has the thought; empty where there is none."""
    message = _first(reply["choices"], "")["message"]
    return next((name for name in _THOUGHTS if isinstance(message.get(name), str) and message[name].strip()), "")


_THOUGHTS = ("reasoning_content", "reasoning")


def _thought(message: dict[str, Any]) -> str:
    found = (message.get(name) for name in _THOUGHTS)
    return next((text.strip() for text in found if isinstance(text, str) and text.strip()), "")


def _calls(message: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and arguments of each call that a server has read out of the text; of the older `function_call` there is one."""
    calls = message.get("tool_calls") or [message.get("function_call")]
    functions = (
        [call.get("function", call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    )
    named = [one for one in functions if isinstance(one, dict) and isinstance(one.get("name"), str)]
    return [(one["name"], _arguments(one.get("arguments", one.get("parameters")))) for one in named]


def _arguments(given: Any) -> str:
    """The arguments of a call as JSON; those that are no object stay in their place, where the model is told of them."""
    return given if isinstance(given, str) else json.dumps(given)


def _of_error_inside(reply: dict[str, Any], model: str, where: str) -> Exception:
    """An error that comes with status 200, as some gateways send it."""
    error = reply.get("error", reply)
    status = error.get("code") if isinstance(error, dict) else None
    known = status if isinstance(status, int) and 400 <= status < 600 else 500
    return of_status(known, reply, {}, model, where)
