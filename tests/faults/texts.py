"""Hostile model texts by grammar, and what must hold for each of them. Text `k` of a seed is the same in every run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from cof_agent import protocol
from cof_agent.environment import ZoomEnvironment, ZoomSettings
from cof_agent.geometry import CoordinateSystem, Size
from cof_agent.trajectory import Action, Malformed, Sample, StopReason, Trajectory, Turn, from_json, to_json
from tests import dialects
from tests.computing import timed

TOOLS = ("rotate", "zoom_in")
LONGEST = 4_000  # characters of a text of the grammar
SLOWEST = 0.5  # seconds of computing for all that is done with one such text; a hundredth of a second is usual
SYSTEMS = tuple(CoordinateSystem)
Part = Callable[[random.Random], str]

TAGS = tuple(
    mark.format(name)
    for name in ("think", "tool_call", "answer")
    for mark in ("<{}>", "</{}>", "<{}", "{}>", "< {} >", "<{}/>", "<<{}>>", "</{}", "<{} x=1>")
)
WORDS = (
    *(
        "The sign is red.",
        "It says 7K.",
        "",
        " ",
        "\n\n",
        "\t",
        "zoom",
        "bbox_2d",
        "arguments",
        "null",
        "NaN",
        "Infinity",
    ),
    *("\x1b[31m", "\x00", "\r", "\u202e", "\u2066", "\ud800", "\udfff\ud800", "\ufeff", "\u2028", "e\u0301" * 5),
    *("图像", "שלום", "नमस्ते", "👨‍👩‍👧", "\N{FULLWIDTH LESS-THAN SIGN}think\N{FULLWIDTH GREATER-THAN SIGN}", "١٢٣", "½"),
    *("<script>alert(1)</script>", "{{ 7 * 7 }}", "${x}", "%s%n", "javascript:alert(1)", "'; drop table", "../../etc"),
    *("<|im_end|>", "<|im_start|>assistant\n", "<|image_pad|>", "<|vision_start|>", "<image>", "###", "```json", "```"),
    *("[red]", "[/]", "\\boxed{3}", "\\", '\\"', "//", "/*", "*/", "# note"),
)
NUMBERS = (
    *("0", "1", "-1", "12", "100.5", "1e3", "1e400", "-1e400", "1E-400", "NaN", "Infinity", "-Infinity", "007", "0x10"),
    *(
        "9" * 40,
        "9" * 5_000,
        "1" + "0" * 400,
        "0." + "3" * 60,
        "1,000",
        "1_000",
        "true",
        "null",
        '"5"',
        '"a"',
        "''",
        "٣",
    ),
    *("[]", "{}", "[1]", '{"x": 1}', "--3", "+4", ".5", "5.", "1/3", "2**31", "2147483648", "9007199254740993"),
)
KEYS = ("bbox_2d", "bbox", "image", "img_idx", "name", "arguments", "parameters", "label", "__proto__", "", "BBOX_2D")
NAMES = ("image_zoom_in_tool", dialects.ZOOM, "rotate", "zoom_in", "rm -rf", "", "\x1b", "None", "a" * 300)


def text_of(seed: int, number: int) -> str:
    """The text: a good turn or a heap of parts, then changed here and there, at most `LONGEST` characters."""
    chance = random.Random(f"{seed}:{number}")
    made = _turn(chance) if chance.random() < 0.5 else "".join(_part(chance) for _ in range(chance.randint(0, 40)))
    for _ in range(chance.choice((0, 0, 1, 2, 8))):
        made = chance.choice(_CHANGES)(made, chance)
    return made[:LONGEST]


def _part(chance: random.Random) -> str:
    return chance.choice((_tag, _tag, _word, _word, _call, _json, _number, _run, _turn))(chance)


def _turn(chance: random.Random) -> str:
    end = _call(chance) if chance.random() < 0.6 else f"<answer>{_word(chance)}</answer>"
    return f"<think>{_word(chance)}</think>{chance.choice(('', chr(10)))}{end * chance.choice((1, 1, 1, 2, 30))}"


def _tag(chance: random.Random) -> str:
    return chance.choice(TAGS)


def _word(chance: random.Random) -> str:
    return chance.choice(WORDS) if chance.random() < 0.9 else chr(chance.randrange(0x110000))


def _number(chance: random.Random) -> str:
    return chance.choice(NUMBERS) if chance.random() < 0.5 else str(chance.randint(-50, 900))


def _run(chance: random.Random) -> str:
    return (_tag(chance) + _word(chance)) * chance.choice((2, 20, 200))


def _call(chance: random.Random) -> str:
    inside = _json(chance)
    return chance.choice(("<tool_call>{}</tool_call>", "<tool_call>\n{}\n</tool_call>", "<tool_call>{}")).replace(
        "{}", inside
    )


def _json(chance: random.Random) -> str:
    if chance.random() < 0.1:
        deep = chance.choice((3, 100, 1_500))
        return chance.choice(("[", '{"a":', '{"arguments":')) * deep + chance.choice(("", "]" * deep, "}" * deep))
    box = f"[{', '.join(_number(chance) for _ in range(chance.choice((4, 4, 4, 4, 0, 1, 3, 5, 17, 300))))}]"
    if chance.random() < 0.1:
        box = chance.choice((f"[{box}]", f'"{box}"', f'{{"x": {box}}}', "null", "5", '"1 2 3 4"', f"[{box}, {box}]"))
    given = f'"{chance.choice(KEYS)}": {box}'
    for _ in range(chance.choice((0, 0, 1, 3))):
        given += f', "{chance.choice(KEYS)}": {_number(chance)}'
    if chance.random() < 0.2:
        return f"{{{given}}}"
    name = chance.choice(NAMES) if chance.random() < 0.5 else dialects.ZOOM
    return f'{{"name": "{name}", "arguments": {{{given}}}}}'


def _cut(text: str, chance: random.Random) -> str:
    return text[: chance.randint(0, len(text))]


def _put(text: str, chance: random.Random) -> str:
    at = chance.randint(0, len(text))
    return text[:at] + _part(chance) + text[at:]


def _drop(text: str, chance: random.Random) -> str:
    at = chance.randint(0, len(text))
    return text[:at] + text[at + chance.randint(1, 12) :]


def _twice(text: str, chance: random.Random) -> str:
    start = chance.randint(0, len(text))
    return text + text[start : start + 400]


def _swap(text: str, chance: random.Random) -> str:
    old, new = chance.choice(
        (('"', "'"), ("<", "＜"), (":", "="), ("{", "["), (",", ",,"), ("\n", "\r\n"), ("}", "},"))
    )
    return text.replace(old, new)


_CHANGES = (_cut, _put, _drop, _twice, _swap)


class Reading:
    """Everything that is done with the text of a model, on a picture of 800 x 600 pixels."""

    def __init__(self) -> None:
        self.environment = ZoomEnvironment(ZoomSettings())
        self.overview = self.environment.overview(Size(800, 600))
        self.sample = Sample("1", "none.png", "What?")

    def fault_of(self, text: str) -> str | None:
        """What is wrong with the way a text is read; None if all is well."""
        try:
            _, seconds = timed(lambda: self._check(text), SLOWEST)
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:300]
        return f"it took {seconds:.2f} s" if seconds > SLOWEST else None

    def _check(self, text: str) -> None:
        read = protocol.read(text)
        assert read, "nothing is read"
        assert isinstance(protocol.thought(text), str) and protocol.begins_anew(text) in (True, False)
        assert "\n" not in protocol.without_tags(text)
        protocol.json_in(text)
        protocol.box_after(text, len(text) // 2)
        for tools in ((), TOOLS):
            actions = protocol.parse(text, tools)
            assert actions and len(actions) == len(read)
            if protocol.well_formed(text, tools):
                assert not any(isinstance(action, Malformed) for action in actions)
        system = SYSTEMS[len(text) % len(SYSTEMS)]
        self._check_step(text, protocol.parse(text, system=system), system)

    def _check_step(self, text: str, actions: tuple[Action, ...], system: CoordinateSystem) -> None:
        """The record comes back as it was, and what the model is told next can be rendered."""
        environment = self.environment.with_system(system)
        turn = Turn(text, actions, environment.step(actions, (self.overview,), texts=0))
        made = Trajectory(self.sample, self.overview, (turn,), StopReason.MALFORMED)
        line = to_json(made)
        back = from_json(line, Trajectory)
        whole = text.encode("utf-8", "replace").decode()
        assert replace(back.turns[0], text="") == replace(from_json(to_json(turn), Turn), text="")
        assert back.turns[0].text == whole and to_json(back) == line and "\n" not in line
        messages = protocol.render(back, system=system)
        assert messages[2]["content"][0]["text"] == whole


def faults(numbers: Iterable[int], seed: int = 0) -> Iterator[tuple[int, str, str]]:
    """Number, text and fault of each of these texts that is read wrongly."""
    reading = Reading()
    for number in numbers:
        text = text_of(seed, number)
        if (fault := reading.fault_of(text)) is not None:
            yield number, text, fault
