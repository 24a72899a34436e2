"""What the questions of a set mean, seen over all of them: then each becomes a sample."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cof_agent.data.answers import (
    READINGS,
    Reading,
    Truth,
    agreed,
    is_four_numbers,
    right_keys,
    understood,
)
from cof_agent.data.boxes import Form, Written, in_pixels, may_be_sizes, may_be_thousandths, recognised, written
from cof_agent.data.choices import Choices, are_numbered, choices_of
from cof_agent.data.forms import LOCATE
from cof_agent.data.items import Item
from cof_agent.data.nested import is_missing
from cof_agent.data.questions import Question, common_instruction, parse
from cof_agent.data.unusable import (
    BAD_ANSWER,
    BAD_BOX,
    BAD_REGIONS,
    NO_ANSWER,
    NO_QUESTION,
    NOT_A_CHOICE,
    Tally,
    Unusable,
)
from cof_agent.errors import InputError
from cof_agent.geometry import Box
from cof_agent.region_refs import check_regions
from cof_agent.trajectory import Sample

IOU, VQA, SEVERAL = "iou", "vqa", "several"
"""`metadata["scoring"]` of samples whose answer is a box, has ten people's answers, or names several right choices."""

RIGHT = "right"
"""Key of the metadata of a sample with several right choices: their texts."""

_LONG = 15  # words
_ASKS_FOR_BOX = re.compile(
    r"bounding box|\bbbox|bounding-box|\blocate\b|\bregion this\b|<ref>"
    r"|\bcoordinates?\b(?=.*(?:\bbox|\bregion\b|\bx_?[01]\b|\bx_?min\b|\b(?:top|upper).?left\b|\[x))"
    r"|(?:\bbox\b|\bregion\b|\bx_?[01]\b|\bx_?min\b).*\bcoordinates?\b",
    re.IGNORECASE | re.DOTALL,
)
"""The coordinates of a point, as in mathematics, are none of a box."""
_ASKS_FOR_OTHERS = re.compile(r"\b(?:what|which|how|who|when|why|list|count|read|compute|calculate)\b", re.IGNORECASE)
"""Words of questions that four numbers in a list answer as numbers, and not as the place of a thing."""
_BOX_WORDS = ("box", "coordinate", "locate", "region this", "<ref>")
_MARK = r"(?:marked|circled|highlighted|outlined|boxed|indicated|enclosed|specified|given)"
_PLACE = r"(?:area|region|box|object|part)"
_SPEAKS_OF_MARK = re.compile(rf"\b{_MARK}\b[^.?]*\b{_PLACE}\b|\b{_PLACE}\b[^.?]*\b{_MARK}\b", re.IGNORECASE)


@dataclass(slots=True)
class Understood:
    """A question whose parts are known, and what is right."""

    item: Item
    question: Question
    choices: Choices
    truth: Truth
    answer_box: Written | None = None
    no_choices: bool = False
    """Whether something in the question looked like choices, but the answer is none of them."""


def understand(
    items: Sequence[Item], where: str, box_form: Form | None, with_boxes: bool, tally: Tally
) -> list[Sample]:
    """The samples of the items that are wanted and usable. box_form: what the numbers of boxes mean, where a user says it;
    with_boxes: whether boxes beside the question are used.

    Raises:
        InputError: if it cannot be told what the boxes are, naming `where`.
    """
    items = _as_expressions(items)
    if with_boxes and _name_things(items):
        tally.notes.append("no question has an answer, and each has one box: what is asked for is that box")
        items = [replace(item, draft=replace(item.draft, question=LOCATE + item.draft.question)) for item in items]
    instruction = common_instruction([item.draft.question for item in items])
    numbered = are_numbered([item.draft.question for item in items if not is_missing(item.draft.answer)])
    boxes = with_boxes and bool(items) and all(is_four_numbers(item.draft.answer) for item in items)
    reads = partial(_understood, instruction=instruction, numbered=numbered, boxes=boxes, with_boxes=with_boxes)
    parts = [_attempt(tally, item, partial(reads, item)) for item in items]
    found = [part for part in parts if part is not None]
    if _are_yes_or_no(found):
        tally.notes.append("the answers 0 and 1 are read as no and yes")
        found = [_as_yes_or_no(one) for one in found]
    made = _Set(found, where, box_form, with_boxes, tally)
    samples = [_attempt(tally, one.item, partial(made.sample, one)) for one in found if one.item.wanted]
    made.tell()
    known = [sample for sample in samples if sample is not None]
    if long := sum(_is_long(sample) for sample in known):
        tally.notes.append(
            f"{long:,} of {len(known):,} known answers have more than {_LONG} words, which a reply hardly matches: a judge can "
            "compare them"
        )
    return known


def _is_long(sample: Sample) -> bool:
    return bool(sample.answers) and not sample.choices and all(len(text.split()) > _LONG for text in sample.answers)


def _attempt(tally: Tally, item: Item, make: Any) -> Any:
    return (tally if item.wanted else Tally()).attempt(item.row, item.file, make)


def _as_expressions(items: Sequence[Item]) -> list[Item]:
    """The items of a set that asks the same of every box ("Describe the marked area") as questions for the box of each of its
    expressions: the image shows no mark."""
    asked = {item.draft.question for item in items}
    one_box_each = all(len(item.boxes) == 1 and not is_missing(item.draft.answer) for item in items)
    if len(asked) != 1 or not one_box_each or not _SPEAKS_OF_MARK.search(asked.pop()):
        return list(items)
    return [made for item in items for made in _expressions(item)]


def _name_things(items: Sequence[Item]) -> bool:
    """Whether a set says different things of its images, asks nothing, and has a box for each: what to click on, or to find."""
    texts = {item.draft.question for item in items}
    one_each = all(len(item.boxes) == len(item.images) == 1 for item in items)
    unanswered = all(is_missing(item.draft.answer) and item.draft.choices is None for item in items)
    asking = any("?" in text or _asks_for_box(text) for text in texts)
    return one_each and unanswered and not asking and len(texts) > len(items) / 2


def _expressions(item: Item) -> list[Item]:
    said = item.draft.answer if isinstance(item.draft.answer, list) else [item.draft.answer]
    texts = [text for text in said if isinstance(text, str)]
    ids = [
        f"{item.draft.id}-{number}" if item.draft.id and len(texts) > 1 else item.draft.id
        for number in range(len(texts))
    ]
    return [
        replace(item, draft=replace(item.draft, id=id, question=LOCATE + text, answer=None))
        for id, text in zip(ids, texts, strict=True)
    ]


def _understood(item: Item, *, instruction: str, numbered: bool, boxes: bool, with_boxes: bool) -> Understood:
    """numbered: whether choices are numbered lists in the questions. boxes: whether all answers of the set may be boxes.
    with_boxes: whether answers are read as boxes at all."""
    question = _question(item, instruction, numbered)
    if not question.text:
        raise Unusable(NO_QUESTION, "nothing but marks of images")
    choices, question = _choices(item, question)
    asks_for_box = with_boxes and (boxes or _asks_for_box(question.text))
    may_be_box = not _ASKS_FOR_OTHERS.search(question.text)
    answer = item.draft.answer
    if is_missing(answer) and asks_for_box and len(item.boxes) == len(item.images) == 1:
        return Understood(item, question, {}, Truth(), item.boxes[0])
    try:
        truth = understood(
            answer, choices, asks_for_box=asks_for_box, may_be_box=may_be_box, by_number=item.draft.by_number
        )
    except Unusable as why:
        if item.draft.choices is not None or (why.reason == NOT_A_CHOICE and re.fullmatch(r"\W*[A-Z]\W*", why.detail)):
            raise
        question, choices = (
            replace(question, text=question.whole),
            {},
        )  # what looked like choices is part of the question
        truth = understood(answer, choices, asks_for_box=asks_for_box, may_be_box=may_be_box)
    if truth.box is not None and not with_boxes:
        truth = replace(truth, box=None)
    if truth.box is not None and len(item.images) > 1:
        raise Unusable(BAD_ANSWER, "a box, but in which of the images it lies is not said")
    if truth.box is not None and not _asks_for_box(question.text):
        question = replace(question, text=LOCATE + question.text)
    box = None if truth.box is None else written(list(truth.box), item.images[0].size)[0]
    return Understood(item, question, choices, truth, box, bool(question.choices) and not choices)


_OPENS_YES_OR_NO = re.compile(
    r"(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should)\b", re.IGNORECASE
)
_COUNTS = re.compile(r"\bhow (?:many|much)\b|\bnumber of\b", re.IGNORECASE)


def _are_yes_or_no(found: Sequence[Understood]) -> bool:
    """Whether all answers of a set are 0 or 1, and most of its questions ask for yes or no, as in HallusionBench."""
    asking = sum(_OPENS_YES_OR_NO.match(one.question.text) is not None for one in found)
    answers = {one.truth.texts for one in found}
    return answers == {("0",), ("1",)} and 2 * asking > len(found) and not any(one.choices for one in found)


def _as_yes_or_no(one: Understood) -> Understood:
    if _COUNTS.search(one.question.text):
        return one
    said = ["1", "yes", "true"] if one.truth.texts == ("1",) else ["0", "no", "false"]
    return replace(one, truth=replace(one.truth, forms=[said]))


def _asks_for_box(text: str) -> bool:
    lower = text.lower()
    return any(word in lower for word in _BOX_WORDS) and _ASKS_FOR_BOX.search(text) is not None


def _question(item: Item, instruction: str, numbered: bool) -> Question:
    """The parts of a question. What a set's own prompt says behind it is searched for choices, and is else an instruction."""
    asked, prompt = item.draft.question, item.draft.prompt
    if not prompt or prompt == asked:
        return parse(asked, instruction, numbered=numbered)
    _, inside, behind = prompt.partition(asked)
    if not inside:  # another question than the one that the set asks
        return parse(prompt, instruction, numbered=numbered)
    found = parse(asked, instruction, numbered=numbered)
    if not found.choices and (full := parse(asked + behind)).choices:
        return Question(found.text, full.whole, full.choices, full.instruction)
    told = "\n".join(text for text in (found.instruction, behind.strip()) if text)
    return Question(found.text, found.whole, found.choices, told)


def _choices(item: Item, question: Question) -> tuple[Choices, Question]:
    """The choices of a question, from their columns or from its text, and the question without them."""
    if item.draft.choices is None:
        return question.choices, question
    choices = choices_of(item.draft.choices)
    inside = question.choices
    bare = [key.upper() for key in choices] == [text.upper() for text in choices.values()]
    if inside and len(inside) == len(choices) and (bare or list(inside.values()) == list(choices.values())):
        return inside, question
    return choices, replace(question, text=question.whole)


class _Set:
    """What a set means as a whole."""

    def __init__(
        self, found: Sequence[Understood], where: str, form: Form | None, with_boxes: bool, tally: Tally
    ) -> None:
        self.tally = tally
        self.readings = agreed(one.truth for one in found)
        self.has_answers = any(one.truth.forms or one.answer_box for one in found)
        self.asked = bool(found)
        texts = {text for one in found for text in one.truth.texts}
        letters = len(texts) > 1 and all(len(text) == 1 and "A" <= text <= "H" for text in texts)
        self.letters_alone = letters and not any(one.choices for one in found)
        self.counted: set[Reading] = set()
        self.dropped = self.in_one_of_several = 0
        self.from_wrong = sum(one.item.draft.from_wrong for one in found)
        self.no_choices = sum(one.no_choices for one in found)
        coco = self.asked and all(one.item.draft.coco for one in found)
        alone = [one.item for one in found if one.answer_box is None and len(one.item.images) == 1]
        beside = [box for item in alone for box in item.boxes] if with_boxes else []
        answers = [one.answer_box for one in found if one.answer_box is not None]
        self.form = form or (recognised(beside, where, coco=coco) if beside else None)
        coco_too = coco and all(one.answer_box in one.item.boxes for one in found if one.answer_box)
        self.answer_form = form or (recognised(answers, where, coco=coco_too) if answers else None)
        read = ((self.form, beside, "boxes"), (self.answer_form, answers, "boxes that are answers"))
        guessed = [(what, one, boxes) for one, boxes, what in read if one and not form]
        self.unsure = [(what, one, f"{one.unit}-xywh") for what, one, boxes in guessed if may_be_sizes(boxes, one)]
        self.unsure += [
            (what, one, f"thousand-{one.order}") for what, one, boxes in guessed if may_be_thousandths(boxes, one)
        ]

    def sample(self, one: Understood) -> Sample:
        """Raises: Unusable: if it has no answer, where others have one, or its parts do not fit each other."""
        draft, metadata = one.item.draft, dict(one.item.draft.metadata)
        if one.question.instruction:
            metadata["instruction"] = one.question.instruction
        boxes, images = self._boxes(one), [image.path for image in one.item.images]
        sample = Sample(
            id=draft.id or f"{one.item.number:07d}",
            image=images[0],
            question=one.question.text,
            answers=self._answers(one, boxes, metadata),
            choices=tuple(one.choices.values()),
            boxes=boxes,
            metadata=metadata,
            regions=self._regions(one),
            more_images=tuple(images[1:]),
        )
        return _checked(sample)

    def _answers(self, one: Understood, boxes: tuple[Box, ...], metadata: dict[str, Any]) -> tuple[str, ...]:
        if one.answer_box is not None:
            metadata["scoring"] = IOU
            return (f"[{', '.join(f'{round(value, 2):g}' for value in boxes[0])}]",)
        if not one.truth.forms:
            if self.has_answers:
                raise Unusable(NO_ANSWER)
            return ()
        if not one.choices:
            if one.truth.people:
                metadata["scoring"] = VQA
            return one.truth.texts
        return self._right(one, metadata)

    def _right(self, one: Understood, metadata: dict[str, Any]) -> tuple[str, ...]:
        keys = right_keys(one.truth, self.readings)
        if not keys:
            raise Unusable(NOT_A_CHOICE, f"{', '.join(one.truth.texts)}, as the set counts")
        self.counted.update(reading for reading in self.readings if one.truth.picks.get(reading) == keys)
        texts = [one.choices[key] for key in keys]
        if len(texts) > 1:
            metadata |= {"scoring": SEVERAL, RIGHT: texts}
        return ("; ".join(texts),)

    def _boxes(self, one: Understood) -> tuple[Box, ...]:
        if one.answer_box is not None:
            box = in_pixels(one.answer_box, self.answer_form or Form())
            if box is None:
                raise Unusable(BAD_ANSWER, f"the box {list(one.answer_box.numbers)} lies outside the image")
            return (box,)
        if len(one.item.images) > 1:
            self.in_one_of_several += bool(one.item.boxes)
            return ()
        if self.form is None:
            return ()
        made = [in_pixels(box, self.form) for box in one.item.boxes]
        self.dropped += made.count(None)
        return tuple(box for box in made if box is not None)

    def _regions(self, one: Understood) -> tuple[Box, ...]:
        if is_missing(one.item.draft.regions):
            return ()
        made = [in_pixels(box, Form()) for box in written(one.item.draft.regions)]
        if None in made:
            raise Unusable(BAD_BOX, "a region without an area")
        return tuple(box for box in made if box is not None)

    def tell(self) -> None:
        """Notes on what was decided, where it may be wrong or is not what a user expects."""
        for form, what in ((self.form, "boxes"), (self.answer_form, "boxes that are answers")):
            if form is not None and form != Form():
                self.tally.notes.append(f"{what} are read as {form}")
        if self.asked and not self.has_answers:
            self.tally.notes.append("no answer is known; --column answer=NAME names its column, if there is one")
        if self.letters_alone:
            self.tally.notes.append(
                "all answers are letters, and no choices are known; --column choices=NAME names them"
            )
        self.tally.notes.extend(
            f"{what} are read as {form}; they are few, and --boxes {other} would fit, too"
            for what, form, other in self.unsure
        )
        if self.from_wrong:
            self.tally.notes.append(
                f"{self.from_wrong} questions list wrong choices alone; the answer is put among them"
            )
        if self.no_choices:
            self.tally.notes.append(
                f"what looks like choices in {self.no_choices} questions stays in the question: their answers are none of them"
            )
        if self.dropped:
            self.tally.notes.append(f"{self.dropped} boxes lie outside their images and are passed over")
        if self.in_one_of_several:
            self.tally.notes.append(
                f"the boxes of {self.in_one_of_several} samples are passed over: in which of several images they lie is not said"
            )
        numbers = [reading for reading in READINGS[2:] if reading in self.counted]
        if "text" not in self.counted and "letter" not in self.counted and numbers:
            both = len(numbers) > 1
            self.tally.notes.append(
                f"answers are read as the number of a choice, counted from {'0' if both else numbers[0][-1]}"
            )


def _checked(sample: Sample) -> Sample:
    if not sample.regions and "<region" not in sample.question:
        return sample
    try:
        check_regions(sample)
    except InputError as error:
        raise Unusable(BAD_REGIONS, error) from None
    return sample
