"""What a row asks, whatever its form: one or more questions with all that belongs to each, nothing of it understood yet.

Forms are told apart by structure: a conversation with or without replies, columns by name, a list of questions and answers
about one image, a referring expression with a box, a trajectory of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from random import Random
from typing import Any

from cof_agent.data.answers import understood, unwrapped
from cof_agent.data.boxes import around_outlines, edges_of, holds_boxes
from cof_agent.data.choices import choice_columns, flags_of, keys, text_of
from cof_agent.data.columns import (
    FLAGS,
    WEAK_ANSWERS,
    Columns,
    is_asked,
    is_named,
    is_unwanted,
    words,
    wrong_choices,
)
from cof_agent.data.conversations import Turn, is_conversation, is_search, prompt_of, questions_in, turns_of
from cof_agent.data.images import VIDEO_SUFFIXES, Reference, images_in, is_audio, is_video, references
from cof_agent.data.nested import is_missing, is_nan, unpacked, with_objects
from cof_agent.data.questions import counts_from_nought, has_numbered_marks, marks, without_marks
from cof_agent.data.several import Values, each_question, lifted
from cof_agent.data.unusable import (
    AUDIO,
    BAD_ANSWER,
    BAD_CHOICES,
    NO_IMAGE,
    NO_OBJECT,
    NO_QUESTION,
    NOT_WANTED,
    OTHER_MARKS,
    PLACEHOLDER,
    UNCLEAR_TRUTH,
    VIDEO,
    Unusable,
    check_characters,
)

LOCATE = "Give the bounding box of this: "
"""What is asked about a referring expression that a set gives without a question."""

_ASKS_FOR_BOX = re.compile(
    r"\s*\b(?:please|can you|could you|provide|give|output|return)\b(?:(?!\bplease\b)[^.?!\n])*\bbounding box\b[^\n]*",
    re.IGNORECASE,
)
# What a set fills from another column: ms-swift's, Ferret's, Osprey's, ViP-LLaVA's. `<region1>` is ours.
_PLACEHOLDER = re.compile(
    r"<(?:(?:bbox|ref-object|quad|mask|bbox_?location|box_?location)_?\d*|region(?:_\d+)?)>(?!\s*[\[(\d])",
    re.IGNORECASE,
)
_COCO = {"segmentation", "iscrowd", "category_id"}


@dataclass(slots=True)
class Draft:
    """One question as its row has it. prompt: all that the set's own prompt says, where it has one beside the question. boxes: as
    they are written. coco: whether COCO's other columns stand beside the box. from_nought: whether marks count images from 0.
    earlier: how many of the images were shown before the question. by_number: whether the answer is the number of a choice.
    from_wrong: whether the right answer was put among wrong choices."""

    id: str
    question: str
    answer: Any
    images: list[Reference]
    prompt: str = ""
    choices: Any = None
    boxes: list[Any] = field(default_factory=list)
    regions: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    coco: bool = False
    from_nought: bool = False
    earlier: int = 0
    by_number: bool = False
    from_wrong: bool = False


def drafts(values: Any, columns: Columns) -> list[Draft]:
    """The questions of one row.

    Raises:
        Unusable: if there is none that can be asked.
    """
    if not isinstance(values, dict):
        raise Unusable(NO_OBJECT, values)
    if isinstance(values.get("sample"), dict) and "turns" in values:  # a trajectory of ours
        values = values["sample"]
    values = lifted(with_objects(values, lambda name: is_named(name, "answer")))
    return [draft for one in each_question(values, columns) for draft in _drafts(one, columns)]


def _drafts(values: Values, columns: Columns) -> list[Draft]:
    one_each = choice_columns(tuple(values))
    told = {key: values[name] for key, name in one_each.items()}
    choices = {key: text for key, text in told.items() if not (is_missing(text) or is_nan(text))}
    rest = {name: value for name, value in values.items() if name not in one_each.values()} if one_each else values
    said = [name for name, value in rest.items() if is_conversation(value) and is_asked(name)]
    if not said:
        return [_Row(rest, columns, choices).from_columns()]
    turns = turns_of(rest[said[0]])
    for reply in said[1:]:
        if is_named(reply, "answer") and not any(turn.role == "assistant" for turn in turns):
            turns += turns_of(rest[reply])
    made = _Row({name: value for name, value in rest.items() if name != said[0]}, columns, choices)
    return (
        made.from_conversation(turns) if any(turn.role == "assistant" for turn in turns) else [made.from_prompt(turns)]
    )


class _Row:
    """One row, its questions made from what its columns hold. choices: those that have a column each."""

    def __init__(self, values: Values, columns: Columns, choices: Mapping[str, Any]) -> None:
        self.values, self.choices = values, choices
        self.fields = columns.of(values)
        self._found: list[Reference] | None = None

    def from_columns(self) -> Draft:
        question, answer = self._question(), self._answer_or_reply()
        boxes = self._boxes()
        if question is None and boxes and (said := self._text("expression")):
            question, answer = LOCATE + said, boxes[0]
        if question is None:
            raise Unusable(NO_QUESTION, ", ".join(self.values))
        texts = [question, *([answer] if isinstance(answer, str) else [])]
        if marks(question) < len(self._references()):  # the marks of choices may be for the others
            texts[0] = "\n".join([question, *texts_in(self.choices or self._listed())])
        return self._draft(question, answer, self._images(texts, ()))

    def from_prompt(self, turns: Sequence[Turn]) -> Draft:
        """A prompt that no assistant has answered: the truth stands in a column, and often the bare question, too."""
        prompt = prompt_of(turns)
        question = self._question()
        images = self._images([prompt.text], prompt.images)
        return self._draft(question or prompt.text, self._answer(), images, prompt=prompt.text)

    def from_conversation(self, turns: Sequence[Turn]) -> list[Draft]:
        """The questions that an assistant answers; of one alone, a column may say the truth."""
        asked = questions_in(turns)
        if not asked:
            raise Unusable(NO_QUESTION, "no turn of a user with a reply")
        truth = self._truth_beside(asked[0].answer)
        search, texts = is_search(turns), [turn.text for turn in turns if turn.role != "system"]
        by_turn = len(asked) > 1 and not any(one.images for one in asked) and self._are_marked_by_turn(turns)
        made: list[Draft] = []
        for one in asked:
            if by_turn:
                images = self._references()[: one.earlier + marks(one.question)]
            else:
                images = self._images([one.question] if len(asked) > 1 else texts, one.images, first=search)
            question = _ASKS_FOR_BOX.sub("", one.question) if one.evidence else one.question
            answer = one.answer if truth is None or len(asked) > 1 else truth
            draft = self._draft(question, answer, images)
            draft.boxes = draft.boxes or [text for text in one.evidence if isinstance(unpacked(text), list)]
            draft.earlier = one.earlier if by_turn or one.images else 0
            draft.from_nought = draft.from_nought or counts_from_nought(texts)
            made.append(draft)
        return made

    def _truth_beside(self, reply: str) -> Any:
        """What a column says the true answer is, beside a reply; None where none is certain to. A truth value under one of
        `FLAGS` says whether the reply is wanted, unless the reply is yes or no itself.

        Raises:
            Unusable: if it is not, or if that may be what a 0 or a 1 says.
        """
        says_truth = reply.strip(" .").lower() in ("yes", "no", "true", "false")
        flagged = any(isinstance(self.values.get(name), bool) for name in FLAGS)
        if "answer" in self.fields.given or (says_truth and flagged):
            return self._answer()
        certain = self._certain_answer()
        if not flagged:
            unclear = [name for name in FLAGS if type(value := self.values.get(name)) is int and value in (0, 1)]
            if certain is None and unclear and not reply.strip(" .").isdigit():
                raise Unusable(UNCLEAR_TRUTH, ", ".join(unclear))
            return certain
        if is_unwanted(self.values):
            raise Unusable(NOT_WANTED)
        return None

    def _are_marked_by_turn(self, turns: Sequence[Turn]) -> bool:
        """Whether each of the row's several images has its mark in one of the turns of the user."""
        count = sum(marks(turn.text) for turn in turns if turn.role == "user")
        return count == len(self._references()) > 1 and not any(has_numbered_marks(turn.text) for turn in turns)

    def _joined(self, answer: Any) -> Any:
        """An answer that is several numbers in a list as one text; those of a column of answers are ways to answer."""
        numbers = isinstance(answer, list) and len(answer) > 1 and all(type(one) in (int, float) for one in answer)
        of_several = self.values.get("answers") is answer or len(set(answer)) < len(answer) if numbers else False
        if not numbers or of_several or len(answer) == 4:  # four may be a box
            return answer
        return ", ".join(map(text_of, answer))

    def _draft(self, question: str, answer: Any, images: list[Reference], prompt: str = "") -> Draft:
        if any(has_placeholder(text) for text in (question, answer) if isinstance(text, str)):
            raise Unusable(PLACEHOLDER, question)
        if isinstance(answer, str) and marks(answer) and not without_marks(answer):
            raise Unusable(BAD_ANSWER, "an image")
        id = self._find("id", _is_plain)
        among_wrong = None if self.choices else self._with_wrong_ones(answer)
        choices = self.choices or among_wrong or self._listed()
        if choices is None:
            choices, answer = self._answers_to_choose_from(answer)
        if answer is None and choices is not None:
            answer = flags_of(choices) or self._find("flags", lambda value: isinstance(value, list))
        texts = {name: self._text(name) for name in ("category", "subcategory", "dataset")}
        metadata = {name: value for name, value in texts.items() if value is not None}
        hint = None if is_nan(found := self._text("hint")) else found
        check_characters((id, question, answer, [ref.value for ref in images], prompt, choices, hint, metadata))
        return Draft(
            id="" if id is None else str(id),
            question=question if hint is None or hint in question else f"{hint}\n{question}",
            answer=answer if choices is not None else self._joined(answer),
            images=images,
            prompt=prompt,
            choices=choices,
            boxes=self._boxes(marked=True),
            regions=self.values.get("regions") if "<region" in question else None,
            metadata=metadata,
            coco=not _COCO.isdisjoint(self.values),
            by_number=self._is_index(answer),
            from_wrong=among_wrong is not None,
            from_nought=counts_from_nought((question, prompt, *texts_in(choices), *self._image_names())),
        )

    def _is_index(self, answer: Any) -> bool:
        """Whether the name of the answer's column says that it is the number of a choice: `correct_choice_idx`."""
        named = (
            {"idx", "index"} & {*words(path)} for path, value in self.fields.candidates("answer") if value is answer
        )
        return isinstance(answer, int | str) and not isinstance(answer, bool) and any(named)

    def _image_names(self) -> list[str]:
        """What the images are called where they are listed by their marks: `{"<image_00>": path}`."""
        return [str(key) for value in self.values.values() if isinstance(value, dict) for key in value]

    def _with_wrong_ones(self, answer: Any) -> list[str] | None:
        """The right answer among the wrong ones, which some rows list by themselves; in an order drawn by the question."""
        names = wrong_choices(tuple(self.values))
        wrong = [text_of(one) for name in names for one in _each(self.values[name])]
        if not wrong or not isinstance(answer, str | int | float) or is_missing(answer):
            return None
        if _names_one(answer, wrong, surely_wrong=not any("multiple" in words(name) for name in names)):
            return None
        right = unwrapped(text_of(answer))
        Random(f"choices:{self._text('question')}:{right}").shuffle(all_of_them := sorted({right, *wrong}))
        return all_of_them

    def _listed(self) -> Any:
        """What a column of choices holds; None where there is none.

        Raises:
            Unusable: if a column of that name holds a number or a truth value.
        """
        for path, value in self.fields.candidates("choices"):
            if _is_listing(value):
                return value
            if "choices" in self.fields.given or is_named(path.rpartition(".")[2], "choices"):  # `num_choices` is none
                raise Unusable(BAD_CHOICES, value)
        return None

    def _answers_to_choose_from(self, answer: Any) -> tuple[list[Any] | None, Any]:
        """A column of answers that another column chooses the right one from, by its text, its number or its letter; and which
        that is."""
        found = self.values.get("answers")
        if not isinstance(found, list) or len(found) < 2 or "answer" in self.fields.given:
            return None, answer
        texts = [str(one).casefold() for one in found]
        if len(set(texts)) < len(texts) or any(one in other for one, other in permutations(texts, 2)):
            return None, answer  # ways to say the same
        if answer is not found:
            return (found if answer in found else None), answer
        others = (value for _, value in self.fields.candidates("answer") if value is not found)
        chosen = next((one for one in others if _chooses(one, texts)), None)
        return (None, answer) if chosen is None else (found, chosen)

    def _find(self, field: str, accept: Any = None) -> Any:
        return self.fields.find(field, accept)

    def _text(self, field: str) -> str | None:
        found = self._find(field, _is_text)
        return str(found) if found is not None else None

    def _question(self) -> str | None:
        for path, text in self.fields.candidates("question", _is_text):
            asked = "?" in text or any(words(name) == ("question", "id") for name in self.values)
            if words(path) == ("text",) and not asked and self._answer() is None:
                continue  # a caption
            if words(path) == ("instruction",) and isinstance(self.values.get("input"), str):
                return f"{text}\n{self.values['input']}".strip()
            return str(text)
        return None

    def _answer(self) -> Any:
        return self._find("answer", _is_no_conversation)

    def _certain_answer(self) -> Any:
        """The answer, of a column whose name says that it is the truth."""
        found = self.fields.candidates("answer", _is_no_conversation)
        return next((value for path, value in found if words(path.rpartition(".")[2]) not in WEAK_ANSWERS), None)

    def _answer_or_reply(self) -> Any:
        """The answer; a reply that a truth value says is wanted, in its place.

        Raises:
            Unusable: if it says that it is not.
        """
        answer = self._answer()
        reply = next((self.values[name] for name in ("completion", "response", "output") if name in self.values), None)
        if not isinstance(reply, str) or is_missing(reply) or "answer" in self.fields.given:
            return answer
        if not (isinstance(answer, bool) or answer == reply):
            certain = self._certain_answer()
            if certain is None:
                raise Unusable(UNCLEAR_TRUTH, f"{answer} or {reply}")
            return certain
        beside = self._truth_beside(reply)
        return reply if beside is None else beside

    def _boxes(self, marked: bool = False) -> list[Any]:
        """Those of the columns of boxes, and with `marked` those that stand in the paths of images."""
        found = self._find("boxes", self._are_boxes_of_things) or edges_of(self.values)
        found = found or around_outlines(self._find("outline", lambda value: isinstance(unpacked(value), list))) or None
        in_paths = [ref.box for ref in self._references() if ref.box] if marked else []
        return [*([found] if found is not None else []), *in_paths]

    def _are_boxes_of_things(self, value: Any) -> bool:
        """Whether a column holds boxes, and not those of all words that can be read, which stand in a list beside it."""
        read = (self.values.get(name) for name in ("words", "tokens", "ocr_tokens", "texts"))
        of_words = isinstance(value, list) and any(isinstance(one, list) and len(one) == len(value) for one in read)
        return holds_boxes(value) and not of_words

    def _references(self) -> list[Reference]:
        if self._found is None:
            named = "image" in self.fields.given
            self._found = references(self._find("image")) if named else images_in(self.values)
        return self._found

    def _images(self, texts: Sequence[str], inside: Sequence[Any], first: bool = False) -> list[Reference]:
        """The images of a question. texts: what the row says, the question first; inside: images that stand in the texts
        themselves; first: whether all but those that the question has marks for are crops.

        Raises:
            Unusable: if there is none, or it cannot be told which of several belong to the question.
        """
        if is_video(self.values):
            raise Unusable(VIDEO)
        if is_audio(self.values):
            raise Unusable(AUDIO)
        found = references(list(inside)) or self._references()
        different = list({(ref.kind, ref.value): ref for ref in reversed(found)}.values())[::-1] if found[1:] else found
        if any(ref.kind == "path" and ref.value.lower().endswith(tuple(VIDEO_SUFFIXES)) for ref in different):
            raise Unusable(VIDEO, different[0].value)
        if not different:
            raise Unusable(NO_IMAGE, ", ".join(self.values))
        return different if len(different) == 1 else _marked(found, different, texts, first)


def _marked(found: list[Reference], different: list[Reference], texts: Sequence[str], first: bool) -> list[Reference]:
    """Which of several images belong to the question, by the marks for images in what the row says."""
    counts = [marks(text) for text in texts]
    asked = counts[0]
    if asked == len(found) or (not first and (not any(counts) or has_numbered_marks(texts[0]))):
        return found
    if asked == len(different) or (asked and (first or sum(counts) == len(different))):
        return different[:asked]
    raise Unusable(OTHER_MARKS, f"{len(different)} images, {asked} marks")


def _each(value: Any) -> list[Any]:
    value = unpacked(value)
    return [one for one in (value if isinstance(value, list) else [value]) if not (is_missing(one) or is_nan(one))]


def _names_one(answer: Any, listed: Sequence[str], *, surely_wrong: bool) -> bool:
    """Whether an answer is one of the choices that are listed, so that these are all. surely_wrong: whether their column says
    that they are wrong; else the answer may also be the letter of one, or its number where none is a number itself."""
    try:
        picks = understood(answer, dict(zip(keys(len(listed)), listed, strict=True))).picks
    except Unusable:
        return False
    numbers = any(text.isdecimal() for text in listed)
    return "text" in picks or (not surely_wrong and ("letter" in picks or not numbers))


def _chooses(value: Any, texts: Sequence[str]) -> bool:
    """Whether a value is the number or the letter of one of these texts, and none of them itself."""
    if isinstance(value, bool) or str(value).casefold() in texts:
        return False
    if isinstance(value, int):
        return 0 <= value <= len(texts)
    return isinstance(value, str) and value in keys(len(texts))


def texts_in(value: Any) -> list[str]:
    """The texts of choices, however they are listed."""
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for one in inside for text in texts_in(one)]


def has_placeholder(text: str) -> bool:
    """Whether a text has a place for something that stands in another column, and that is not read."""
    return "<" in text and _PLACEHOLDER.search(text) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_no_conversation(value: Any) -> bool:
    return not is_conversation(value)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_listing(value: Any) -> bool:
    """Whether a value may be a question's choices: several of something."""
    return isinstance(value, list | dict | str)
