"""The roles of the teacher played by a policy: what each is told, and how its reply is read.

The planner is a ReAct agent (arXiv 2210.03629) over the tools of Chain-of-Focus's teacher (arXiv 2505.15436): locate,
describe, adjust. Whatever a model writes that cannot be read comes back to it as a sentence, or counts as unclear.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cof_agent import protocol, scoring
from cof_agent.geometry import Box, BoxError, CoordinateSystem, View, clip_to_view, read_box
from cof_agent.policy import GREEDY, Policy, Sampling
from cof_agent.protocol import Call, Message
from cof_agent.teacher.roles import (
    Adjust,
    Advice,
    Describe,
    Errand,
    Link,
    Locate,
    Move,
    Propose,
    Step,
    Unreadable,
    fitted,
)
from cof_agent.teacher.rules import ADJUSTMENTS
from cof_agent.trajectory import Answer, Malformed

_answer = protocol.ANSWER.format
_FORM = '{"name": ..., "arguments": ...}'


def _plan(system: CoordinateSystem) -> str:
    return f"""You answer a question about a large image of which you see a small overview. You cannot look closer yourself, \
but you can ask for it, one call a turn:
<tools>
{{"name": "locate", "arguments": {{"object": "what to find", "image": 0}}}}
{{"name": "describe", "arguments": {{"bbox_2d": {system.corners}, "image": 0, "question": "what to find out"}}}}
{{"name": "adjust", "arguments": {{"bbox_2d": {system.corners}, "image": 0, "instruction": "how"}}}}
</tools>
locate gives the box of an object. describe cuts a box out of the original as a new image with a number of its own, and \
says what is seen there. adjust gives a box that is {ADJUSTMENTS}. "image" is the number of the image that the box \
refers to: 0 is the overview.
Think inside {protocol.THOUGHT.format("")}, then write one {protocol.CALL.format(_FORM)}, or, when you know it, \
{_answer("the answer")}."""


_LOCATE = """Find the following in the image: {what}
Reply with JSON and nothing else: {{"bbox_2d": {corners}}}, {words}. If it is not there: {{"bbox_2d": null}}"""
_WORDS = {
    CoordinateSystem.ABSOLUTE: "in pixels of the image",
    CoordinateSystem.THOUSAND: "from 0 to 1000 on both axes",
    CoordinateSystem.THOUSAND_YX: "from 0 to 1000 on both axes",
    CoordinateSystem.UNIT: "from 0 to 1 on both axes",
    CoordinateSystem.PADDED: "from 0 to 1 on both axes of the square in whose middle the image lies",
}

DESCRIBE = f"""You are shown parts of a large image and a question. Answer it from what you see, as briefly as possible: a \
word, a number, a name. Write {_answer("your answer")}. If it is too small, cut off or not to be seen, write \
{_answer("unclear")}; never guess."""
_UNCLEAR = "unclear"

_JUDGE = f"""You compare an answer with the true one. Write {_answer("right")} if they mean the same. Otherwise say what \
would help to see better, as one of these words and no other: {_answer("enlarge")} (the box is cut off), \
{_answer("tighten")} (too much around it), {_answer("move")} (a little beside it), {_answer("elsewhere")} \
(another place)."""
_RIGHT = "right"

_SUMMARISE = """Someone looked at an image, zoomed in step by step, and answered a question. Write what they thought: one \
short sentence before each zoom, saying what is not clear yet and where to look, and one before the answer, saying what \
is seen. Nobody knows the answer before it was seen, so do not mention it in an earlier sentence. Do not speak of \
attempts, tools, boxes or of being checked. Reply with JSON and nothing else: {"thoughts": ["...", ...]}"""


class AskedPlanner:
    """A policy that reasons step by step and calls the tools."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name = policy, policy.name

    async def next(self, errand: Errand, views: Sequence[View], steps: Sequence[Step]) -> tuple[Move, str]:
        """See `Planner`."""
        system = self.policy.coordinates
        shown = [fitted(view, self.policy.limits, crop=number > 0) for number, view in enumerate(views)]
        messages = protocol.opening(errand.sample, shown[0], system=system, prompt=_plan(system))
        for step in steps:
            messages.append(_message("assistant", step.text))
            images = [{"type": "image", "view": step.view}] if step.view is not None else []
            messages.append(_message("user", self._reply(step, shown), *images))
        text = (await errand.ask(self.policy, messages, shown)).text
        return self._move(text, shown), text

    def _reply(self, step: Step, shown: Sequence[View]) -> str:
        """What came of a step, its box in the planner's own coordinates."""
        if step.box is None or not isinstance(step.move, Locate | Adjust):
            return step.reply
        box = shown[step.move.image].from_source(step.box, self.policy.coordinates)
        digits = self.policy.coordinates.digits
        return f"[{', '.join(f'{value:.{digits}f}' for value in box)}] in image {step.move.image}"

    def _move(self, text: str, shown: Sequence[View]) -> Move:
        action = protocol.read(text)[0]
        if isinstance(action, Answer):
            return Propose(action.text)
        if isinstance(action, Malformed):
            return Unreadable(action.reason)
        return self._call(action, shown)

    def _call(self, call: Call, shown: Sequence[View]) -> Move:
        image = call.arguments.get("image", 0)
        if isinstance(image, bool) or not isinstance(image, int) or not 0 <= image < len(shown):
            return Unreadable(f'"image" must be the number of an image, 0 to {len(shown) - 1}.')
        if call.name == "locate":
            what = str(call.arguments.get("object") or "").strip()
            return Locate(what[:500], image) if what else Unreadable("locate needs an object to find.")
        if call.name not in ("describe", "adjust"):
            return Unreadable("There is no such tool; the tools are locate, describe and adjust.")
        system = self.policy.coordinates
        try:
            box = clip_to_view(read_box(protocol.box_of(call.arguments.get("bbox_2d")), system), shown[image], system)
        except BoxError as error:
            return Unreadable(str(error))
        source = shown[image].to_source(box, system)
        if call.name == "adjust":
            return Adjust(source, image, str(call.arguments.get("instruction", ""))[:500])
        question = str(call.arguments.get("question") or "").strip()
        return Describe(source, image, question[:500] or None)


class AskedLocator:
    """A policy that points."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name = policy, policy.name

    async def locate(self, errand: Errand, view: View, what: str) -> Box | None:
        """See `Locator`; of several boxes the first."""
        system = self.policy.coordinates
        shown = fitted(view, self.policy.limits)
        request = _LOCATE.format(what=what, corners=system.corners, words=_WORDS[system])
        messages = [_message("user", request, {"type": "image", "view": 0})]
        found = protocol.box_in((await errand.ask(self.policy, messages, [shown])).text)
        try:
            return None if found is None else shown.to_source(clip_to_view(read_box(found), shown, system), system)
        except BoxError:
            return None


class PolicyDescriber:
    """A policy that answers from what it is shown. With `prompt` None it is told what the zoom agent is told, and its
    wish to zoom means that it cannot tell."""

    def __init__(self, policy: Policy, *, prompt: str | None = DESCRIBE) -> None:
        self.policy, self.name, self.limits, self.prompt = policy, policy.name, policy.limits, prompt

    async def describe(
        self, errand: Errand, views: Sequence[View], question: str | None, sampling: Sampling = GREEDY
    ) -> str | None:
        """See `Describer`."""
        sample = errand.sample if question is None else replace(errand.sample, question=question, choices=())
        system, user = protocol.opening(sample, views[0], system=self.policy.coordinates, prompt=self.prompt)
        more = [{"type": "image", "view": number} for number in range(1, len(views))]
        user = {"role": "user", "content": [user["content"][0], *more, *user["content"][1:]]}
        text = (await errand.ask(self.policy, [system, user], views, sampling)).text
        action = protocol.read(text)[0]
        if not isinstance(action, Answer) or scoring.normalise(action.text) == _UNCLEAR:
            return None
        return action.text


class AskedVerifier:
    """A policy that knows the truth. What the evaluation takes for right need not be asked about."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name = policy, policy.name

    async def judge(self, errand: Errand, answer: str, attempt: int) -> Advice | None:
        """See `Verifier`; a reply that cannot be read is advice to enlarge."""
        sample = errand.sample
        if scoring.is_right(answer, sample):
            return None
        case = {"question": protocol.question_text(sample), "true answer": list(sample.answers), "answer": answer}
        messages = [_message("system", _JUDGE), _message("user", json.dumps(case, ensure_ascii=False))]
        action = protocol.read((await errand.ask(self.policy, messages, [])).text)[0]
        word = scoring.normalise(action.text) if isinstance(action, Answer) else ""
        if word == _RIGHT:
            return None
        return Advice(word) if word in list(Advice) else Advice.ENLARGE


class AskedSummariser:
    """A policy that writes the thoughts."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name = policy, policy.name

    async def thoughts(self, errand: Errand, links: Sequence[Link]) -> list[str] | None:
        """See `Summariser`; asked a second time, with other random numbers, where the reply does not fit."""
        sample = errand.sample
        zooms = [{"zoom": number, "seen": link.seen or "not clear yet"} for number, link in enumerate(links, 1)]
        told = {"question": protocol.question_text(sample), "zooms": zooms, "answer": sample.answers[0]}
        asked = f"{json.dumps(told, ensure_ascii=False)}\nWrite exactly {len(links) + 1} sentences."
        messages = [_message("system", _SUMMARISE), _message("user", asked)]
        for sampling in (GREEDY, Sampling(temperature=0.7, seed=1)):
            found = protocol.json_in((await errand.ask(self.policy, messages, [], sampling)).text)
            thoughts = _texts(found.get("thoughts") if isinstance(found, dict) else found)
            if len(thoughts) == len(links) + 1:
                return thoughts
        return None


def _texts(found: Any) -> list[str]:
    """The list of sentences in `found`, without tags that would break the wire format; empty if it is none."""
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        return []
    return [protocol.without_tags(text) for text in found]


def _message(role: str, text: str, *images: dict[str, Any]) -> Message:
    return {"role": role, "content": [*images, {"type": "text", "text": text}]}
