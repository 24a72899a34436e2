"""Writes trajectories as chat completions, whole or in pieces."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cof_agent.graphs.steps import Event, Saw, Spoke
from cof_agent.policy import CONTEXT
from cof_agent.server.openai_request import EARLIER, Asked
from cof_agent.server.refusals import Refusal
from cof_agent.server.words import ENDED, lines_of, usage_of, zoom, zooms_of
from cof_agent.trajectory import StopReason, Trajectory

_FINISH = {StopReason.MAX_ZOOMS: "length", StopReason.TRUNCATED: "length"}
END = b"data: [DONE]\n\n"
WAITING = b": the agent is at work\n\n"


@dataclass
class Reply:
    """The reply to one request; it remembers what was said so far."""

    asked: Asked
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    _steps: list[str] = field(default_factory=list)
    _thought: str = ""
    _zooms: int = 0

    def whole(self, trajectory: Trajectory) -> dict[str, Any]:
        """A chat completion.

        Raises:
            Refusal: if the conversation failed.
        """
        message = {"role": "assistant", "content": _content(trajectory), "refusal": None}
        message |= {"reasoning_content": "\n".join(self._steps), **self._beside(trajectory)}
        choice = {"index": 0, "message": message, "finish_reason": _finish(trajectory), "logprobs": None}
        return self._head("chat.completion") | {"choices": [choice], "usage": usage_of(trajectory)}

    def note(self, event: Event) -> None:
        """Remembers what an event says, for `whole`."""
        self._steps += lines_of(event)

    def step(self, event: Event) -> bytes:
        """The piece of a stream that an event brings; empty where it says nothing."""
        lines = lines_of(event)
        delta: dict[str, Any] = {"reasoning_content": "\n".join(lines) + "\n"} if lines else {}
        if isinstance(event, Spoke):
            self._thought = event.thought
        if isinstance(event, Saw) and (zooms := list(self._new_zooms(event))):
            delta["zooms"] = _in_stream(zooms)
        return self._piece(delta) if delta else b""

    def opening(self) -> bytes:
        """The first piece of a stream."""
        return self._piece({"role": "assistant", "content": ""})

    def close(self, trajectory: Trajectory) -> Iterator[bytes]:
        """The last pieces of a stream.

        Raises:
            Refusal: if the conversation failed.
        """
        beside = self._beside(trajectory)
        unsent = beside.pop("zooms")[self._zooms :]
        yield self._piece(
            {"content": _content(trajectory), **beside, **({"zooms": _in_stream(unsent)} if unsent else {})}
        )
        yield self._piece({}, _finish(trajectory))
        if self.asked.with_usage:
            last = self._head("chat.completion.chunk") | {"choices": [], "usage": usage_of(trajectory)}
            yield _event(last)
        yield END

    def _new_zooms(self, event: Saw) -> Iterator[dict[str, Any]]:
        for view in (one.view for one in event.observations if one.view is not None):
            self._zooms += 1
            yield zoom(view, self._zooms, self._thought)

    def _beside(self, trajectory: Trajectory) -> dict[str, Any]:
        """Fields of the message that are ours: `zooms`, why there is no answer, and what the reader should know."""
        notes = [EARLIER] if self.asked.earlier else []
        notes += [] if trajectory.warning is None else [trajectory.warning]
        notes += trajectory.notes
        ended = ENDED.get(trajectory.stop)
        return {
            "zooms": list(zooms_of(trajectory.turns)),
            **({} if ended is None else {"no_answer": ended}),
            **({"notes": notes} if notes else {}),
        }

    def _piece(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event(self._head("chat.completion.chunk") | {"choices": [choice]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.asked.model}


def _in_stream(zooms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Zooms as parts of a stream, each sent once: by its index OpenAI's clients put together what they got in pieces."""
    return [{"index": one["number"] - 1, **one} for one in zooms]


def failed(refusal: Refusal) -> bytes:
    """The last piece of a stream that failed."""
    return _event(refusal.body()) + END


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _content(trajectory: Trajectory) -> str:
    if trajectory.stop is StopReason.ERROR:
        said = trajectory.error or "the conversation failed."
        if said.startswith(CONTEXT):
            raise Refusal(400, said.removeprefix(CONTEXT).strip(), code="context_length_exceeded", param="messages")
        raise Refusal(400 if trajectory.failure == "image" else 502, said)
    return trajectory.answer or ""


def _finish(trajectory: Trajectory) -> str:
    return _FINISH.get(trajectory.stop, "stop")
