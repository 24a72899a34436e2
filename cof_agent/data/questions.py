"""Questions as they are asked: without marks for images, and with instructions to the answerer kept apart.

A set's own instruction ("Answer with the option's letter ...") would contradict the agent's protocol, so it is no part of the
question. It is known by its words, or by standing behind every question of a set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cof_agent.data.choices import Choices, split_choices

MARK = re.compile(
    r"<(?:img>[^<]*</img|\|vision_start\|>(?:<\|image_pad\|>)*<\|vision_end\|"
    r"|\|?(?:image|img)(?:[ _-]?(?:\d{1,6}|placeholder|token|here|context))?\|?|img src=[^<>]*|start_of_image)>|\[IMG\]",
    re.IGNORECASE,
)
"""What stands in a text where an image is shown."""
_OPENING = "([{\"'“‘«"
_PICTURE = re.compile(r"Picture \d+: *(?=<img>)")
_NAMED_IMAGE = re.compile(r"<img>([^<]*)</img>")
_LEADS_TO_IMAGE = re.compile(
    r"\b(?:in|of|at|from|on|to|and|with|by|for|about|using|see|than|the|this|given|into|within|between"
    r"|describe|consider|compute|examine|observe|explain|analy[sz]e|solve|evaluate|compare)\s*\Z",
    re.IGNORECASE,
)
_LEADS_ON = re.compile(r"\b(?:is|are|was|does|do|did|has|have|like|as|if|that)\s*\Z", re.IGNORECASE)
"""What leads to an image where the sentence goes on behind it."""
_SAYS_OF_IMAGE = re.compile(
    r" ?(?:shows|depicts|illustrates|displays|represents|presents|contains|describes|gives|has"
    r"|is(?! (?:it|this|that|there|the)\b))\b[^.?!\n]*\."
)
"""What stands behind a mark that is the subject of a sentence, and of no question."""

_LABEL = re.compile(r"(?:(Hint:[^\n]*)\n++)?\s*+(?:Question|问题|Q) *[:：]\s*", re.IGNORECASE)
_APPENDIX = re.compile(r"(?<!\n)\n++#++ *+User Image (?:Path|Size)\b.*\Z", re.DOTALL)  # Thyme's, for its sandbox
_SPACES = re.compile(r"[^\S\n]+")
_UNEVEN = ("  ", " \n", "\n ", "\t", "\r", "\v", "\f")
_LETTERS_ALONE = r"(?!(?:[A-H]\b[\s,/.;|]*(?:or |and )?)+(?:[)\]]|\W*\Z))"
_LISTS_ANSWERS = re.compile(
    r"\b(?:from|options?|choices?|among|between|one of|following|are)\b[^.:?!\n\[(<]{0,40}[:\[(]\s*(?:(?:i\.e\.|e\.g\.),?\s*)?"
    rf"{_LETTERS_ALONE}(?!yes\W+(?:or\W+)?no\W*\Z)(?=[^.!?\n]*(?:[,/|;]| or | and ))\w"
    rf"|\bone of (?!(?:the|these|those|them|following|given|options|choices|your|all)\b){_LETTERS_ALONE}\w"
    r"|\bT or F\b",
    re.IGNORECASE,
)
"""What may be answered: "from the following options: red, blue". Letters alone stand for choices, which are listed elsewhere."""
_BOUNDARY = re.compile(r"\n\s*|(?<=[.!?。？！])\s+")
_BEGINS_ANEW = re.compile(r"(?:\n|[.!?。？！]\s)\s*\Z")
_LOOK_BESIDE = 80  # characters before a mark that may lead to it
_LONGEST_SENTENCE = 2000  # characters of an instruction
_LOOK_BACK = 3000  # characters in which an instruction is looked for

_ANSWER = (
    r"(?:answers?|responses?|options?(?:'s)?(?: letter)?|choices?|reasoning|json|tags?|only the letter"
    r"|(?:single|one|few|short) (?:words?|phrases?|sentences?|numbers?|letters?))\b"
)
_INSTRUCTION = re.compile(
    r"[(\[*\s]*(?:please\b,?\s*|note:\s*|hint:\s*|first,?\s+|finally,?\s+|then,?\s+|now,?\s+)*(?:"
    r"(?:directly |briefly )?(?:answer|respond|reply)\b(?: (?:to )?the question)?(?: or complete the sentence)?"
    r"(?: (?:above|below|directly|briefly|concisely|shortly|only|with|using|in|yes|based|from|as|and|if|step)\b"
    rf"| by (?:yes|no|choosing|selecting|picking|writing|(?:giving|providing) .*{_ANSWER})|[.,:\s]*\Z)"
    r"|(?!.*\b(?:figures?|pictures?|shapes?|patterns?)\b)"
    rf"(?:select|choose|pick)\b.*\b(?:{_ANSWER}|from (?:the )?(?:following|given|options|choices))"
    r"|(?:output|return|give|provide|write|put|enclose|wrap|format|end|state|present|include|report)\b.*"
    rf"(?:\b{_ANSWER}|<\w+>|\\boxed)"
    r"|(?:let'?s )?think\b.*\b(?:step|first|then|before|carefully|answer)|think\W*\Z"
    r"|(?:solve|reason|think)\b.*\bstep by step"
    rf"|(?:the|your) (?:\w+ )?(?:{_ANSWER}|output|process|thought)(?: process)? (?:must|should|is to|has to|needs? to)\b"
    r"|you (?:first|should|must|need to|may|can|are to)\b.*\b(?:answer|think|reason|respond|tool|zoom|call)"
    r"|(?:call|use)\b.*\btools?\b|if\b.*\b(?:tools?|zoom)\b|format strictly\b"
    r"|(?:the )?(?:best |final )?answer(?: is)?:?\s*\Z"
    r"|.*(?:<answer>|<think>|\\boxed\{)"
    r").*",
    re.IGNORECASE | re.DOTALL,
)
_WORDS = (
    *(
        "answer",
        "think",
        "reason",
        "respond",
        "reply",
        "output",
        "option",
        "choice",
        "letter",
        "tool",
        "format",
        "final",
    ),
    *("boxed", "step", "phrase", "<"),
)
_SPEAKS_OF_ANSWERING = re.compile(
    r"\b(?:answer|think|reason|respond|reply|output|options?|choices?|letter|tools?|format|final|boxed|step|phrase)\b|</?\w+>",
    re.IGNORECASE,
)


_SAYS_WHAT_IS_RIGHT = re.compile(
    r"\bif\b(?![^\n.]*\b(?:tools?|zoom|call)\b)[^\n.]*\b(?:answer|output|respond|reply|say|write|return)\b *[:\"'“]",
    re.IGNORECASE,
)
"""A case and the answer that belongs to it: `If there are none, output: None`."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question's text in parts. text: what is asked. whole: the same with the choices that stand in it. instruction: what a set
    says about how to answer."""

    text: str
    whole: str
    choices: Choices
    instruction: str


def parse(text: str, instruction: str = "", *, numbered: bool = False) -> Question:
    """The parts of a question's text, which has no marks. instruction: what stands behind every question of its set. numbered:
    whether its choices are a numbered list."""
    said = []
    if instruction and text.endswith(instruction) and text != instruction:
        text, said = text.removesuffix(instruction).rstrip(), [instruction]
    text, appendix = _without_appendix(text)
    text, label = _without_label(text)
    whole, behind = cut_instruction(text)
    found = split_choices(whole, numbered=numbered)
    if found is None:
        return Question(whole, whole, {}, _joined(label, behind, *said, appendix))
    asked, before = cut_instruction(found.before)
    if found.after and not _is_instruction(found.after):
        asked, found_after = f"{asked}\n{found.after}", ""
    else:
        found_after = found.after
    return Question(asked, whole, found.choices, _joined(label, before, found_after, behind, *said, appendix))


def without_marks(text: str) -> str:
    """A text without marks for its image. Where a sentence needs a word in a mark's place, it is "the image"."""
    if "<" in text or "[IMG]" in text:
        text = MARK.sub(_word_for_mark, _PICTURE.sub("", text) if "<img>" in text else text)
    if not text.isascii() or any(pair in text for pair in _UNEVEN):
        text = re.sub(r" ?\n ?", "\n", _SPACES.sub(" ", text))
    return text.strip()


class Pictures:
    """The names of the pictures that the marks of one question stand for, "picture 1", "picture 2", ...: by the number in a mark,
    or by its place among the marks. from_nought: whether the first number is 0. earlier: pictures before the first mark."""

    def __init__(self, *, from_nought: bool = False, earlier: int = 0) -> None:
        self._seen, self._first = earlier, 0 if from_nought else 1

    def in_question(self, text: str) -> str:
        """The text with names in the places of marks. Where all marks stand before or behind it, they say nothing, and go."""
        text = _PICTURE.sub("", text)
        between = [part for part in MARK.split(text) if part.strip()]
        named = MARK.sub(self._name, text)  # also where they go, so that the marks of choices go on counting
        return without_marks(named if len(between) > 1 else text)

    def in_choices(self, value: Any) -> Any:
        """The choices as a set has them, with names in the places of marks."""
        if isinstance(value, list | tuple):
            return [self.in_choices(one) for one in value]
        if isinstance(value, Mapping):
            return {key: self.in_choices(one) for key, one in value.items()}
        return MARK.sub(self._name, value) if isinstance(value, str) and marks(value) else value

    def _name(self, found: re.Match[str]) -> str:
        self._seen += 1
        number = number_in(found[0])
        before, behind = found.string[: found.start()][-1:], found.string[found.end() :][:1]
        apart = before and not before.isspace() and before not in _OPENING
        named = self._seen if number is None else number + 1 - self._first
        return f"{' ' * bool(apart)}picture {named}{' ' * behind.isalnum()}"


def named_marks(text: str) -> str:
    """A question about several images, with "picture 1", "picture 2", ... in the places of marks."""
    return Pictures().in_question(text)


def counts_from_nought(texts: Iterable[str]) -> bool:
    """Whether one of the marks in these texts has the number 0, so that `<image_1>` is the second image."""
    return any(number_in(found[0]) == 0 for text in texts if "<" in text for found in MARK.finditer(text))


def number_in(mark: str) -> int | None:
    """The number of the image that a mark is for, as it is written; None where it has none."""
    found = re.search(r"\d{1,6}", mark) if "img>" not in mark and "src=" not in mark else None
    return int(found[0]) if found else None


def marks(text: str) -> int:
    """How many images a text has a mark for; marks with the same number are for one."""
    if "<" not in text and "[IMG]" not in text:
        return 0
    numbers = [number_in(found[0]) for found in MARK.finditer(text)]
    return numbers.count(None) + len(set(numbers) - {None})


def has_numbered_marks(text: str) -> bool:
    """Whether the marks of a text say which image each is for: `<image 2>`."""
    return any(number_in(found[0]) is not None for found in MARK.finditer(text)) if "<" in text else False


def images_named_in(text: str) -> list[str]:
    """The paths that a text names, as Qwen-VL's sets do: `<img>PATH</img>`."""
    return [name for found in _NAMED_IMAGE.findall(text) if (name := found.strip())] if "<img>" in text else []


def _word_for_mark(found: re.Match[str]) -> str:
    before = found.string[max(0, found.start() - _LOOK_BESIDE) : found.start()].rpartition("\n")[2]
    goes_on = re.match(r" ?[\w?]", found.string[found.end() : found.end() + 2])
    leads = _LEADS_TO_IMAGE.search(before) or (_LEADS_ON.search(before) if goes_on else None)
    if leads is None and not before.strip() and _SAYS_OF_IMAGE.match(found.string, found.end()):
        return "The image" if found.string[found.end() :][:1].isspace() else "The image "
    if leads is None:
        return " "
    word = "image" if leads[0].strip().lower() in ("the", "this") else "the image"
    behind = found.string[found.end() : found.end() + 1]
    return f"{'' if before[-1:].isspace() else ' '}{word}{' ' if behind.isalnum() else ''}"


_DECIDES = re.compile(
    r"\b(?:decimals?|degrees?|radians?|euros?|dollars?|percent(?:ages?)?|currency|fractions?|met(?:er|re)s?|centimet(?:er|re)s?"
    r"|in (?:[a-z]+ ){0,2}(?:[km]g|kilograms?|grams?|tons?|[cmk]m|lit(?:er|re)s?|ml|seconds?|minutes?|hours?|days?|weeks?|months?"
    r"|years?|thousands?|millions?|billions?|trillions?|numerals|binary|hexadecimal)|(?:not|as|in) (?:words|digits)"
    r"|(?:in|into|to) (?:English|Chinese|French|German|Spanish|Italian|Japanese|Korean|Russian|Arabic|Hindi|Portuguese)"
    r"|(?:DD|MM|YYYY|YY|HH|SS)(?=[-/:. ]|\b)|[AaPp]\.?[Mm]\.?(?= or )"
    r"|kilomet(?:er|re)s?|miles|inches|feet|(?:12|24)[- ]hours?|round(?:ed)?|nearest|significant"
    r"|(?:upper|lower) ?case|capitals?|(?:alphabetical|ascending|descending|reverse|chronological) order"
    r"|(?:first|second|third|last) (?:words?|letters?|digits?|numbers?|names?|lines?))\b|[€£¥%]",
    re.IGNORECASE,
)
"""What says which answer is right, and not only how it is written down."""


def _without_appendix(text: str) -> tuple[str, str]:
    found = _APPENDIX.search(text) if "#" in text else None
    return (text[: found.start()].rstrip(), found[0].strip()) if found else (text, "")


def _without_label(text: str) -> tuple[str, str]:
    found = _LABEL.match(text)
    if found is None or found.end() == len(text):
        return text, ""
    hint = found[1] or ""
    if hint and not _is_instruction(hint):
        return f"{hint}\n{text[found.end() :]}", ""
    return text[found.end() :], hint


def _asks(text: str) -> bool:
    return "?" in text or "？" in text


_MAY_ASK = re.compile(
    r"[(\[*\s]*(?:please\b,?\s*|then,?\s+|now,?\s+)*(?:(?:output|return|give|provide|write|put|present|include|report|state)\b"
    r"|(?:call|use|if)\b.*\btools?\b)",
    re.IGNORECASE | re.DOTALL,
)
"""Sentences that may be what a picture is asked for: "Write the option that is highlighted."."""
_TELLS_HOW = re.compile(
    r"<\w+>|\\boxed|```|\bword or\b|\b(?:given|provided|available) tools?\b|\btools? (?:provided|available|if|when)\b"
    r"|\b(?:your|only|letter|single|one|json|tags?|format|reasoning|directly|briefly|zoom|crop|call)\b"
    r"|\b(?:short|final) (?:answer|phrase)\W*\Z",
    re.IGNORECASE,
)
"""What only an instruction says."""


def cut_instruction(text: str) -> tuple[str, str]:
    """A text without the sentences at its end that say how to answer, and these sentences. Something always stays."""
    if not _speaks_of_answering(text[-_LOOK_BACK:]):
        return text, ""
    cut = len(text)
    for start, end in _boundaries(text):
        sentence = text[end:cut].strip()
        if sentence and (_asks(sentence) or not _is_instruction(sentence)):
            break
        if not _asks(text[:start]) and _MAY_ASK.match(sentence) and not _TELLS_HOW.search(sentence):
            break  # nothing that stays asks anything, so that this may be what is asked
        cut = start
    return text[:cut].rstrip(), text[cut:].strip()


def _is_instruction(sentence: str) -> bool:
    if len(sentence) > _LONGEST_SENTENCE or _DECIDES.search(sentence) or _LISTS_ANSWERS.search(sentence):
        return False
    return _INSTRUCTION.fullmatch(sentence) is not None


def _boundaries(text: str) -> list[tuple[int, int]]:
    """Where sentences and lines end and the next begin, from the last on; none of those before anything is said."""
    found = [one.span() for one in _BOUNDARY.finditer(text, max(0, len(text) - _LOOK_BACK))]
    return [span for span in reversed(found) if text[: span[0]].strip()]


def common_instruction(texts: Sequence[str]) -> str:
    """The sentences that stand behind each of several different questions and speak of answering; "" where there are none."""
    if len(set(texts)) < 3:
        return ""
    first, last = min(reversed_texts := [text[::-1] for text in texts]), max(reversed_texts)
    length = next((n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    shared = first[:length][::-1][-_LOOK_BACK:]
    whole = all(_BEGINS_ANEW.search(text[: len(text) - len(shared)][-_LOOK_BESIDE:]) for text in texts)
    starts = [*([0] if whole else []), *(one.end() for one in _BOUNDARY.finditer(shared))]
    return next((shared[start:].strip() for start in starts if _tells_how(shared[start:].strip())), "")


def _tells_how(text: str) -> bool:
    """Whether sentences say how to answer, from the first on, and neither what may be answered nor what is right when."""
    if "?" in text or not _speaks_of_answering(_BOUNDARY.split(text, maxsplit=1)[0]):
        return False
    if split_choices(f"?\n{text}") is not None or _SAYS_WHAT_IS_RIGHT.search(text):
        return False
    return not any(_DECIDES.search(one) or _LISTS_ANSWERS.search(one) for one in _BOUNDARY.split(text))


def _speaks_of_answering(text: str) -> bool:
    lower = text.lower()
    return any(word in lower for word in _WORDS) and _SPEAKS_OF_ANSWERING.search(text) is not None


def _joined(*parts: str) -> str:
    return "\n".join(part for part in parts if part)
