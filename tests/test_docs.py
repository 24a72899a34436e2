"""The guides say what is there: links resolve, the README is short, and every command in a guide, in the head of a
configuration or in a script is one that would run."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from cof_agent import cli
from cof_agent.errors import InputError

ROOT = Path(__file__).parents[1]
ROOMS = ("cof_agent", "rl", "scripts", "sft", "tests")
GUIDES = sorted([*ROOT.glob("*.md"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.md"))])
HEADS = sorted([*(ROOT / "sft" / "configs").glob("*.yaml"), *(ROOT / "rl" / "configs").glob("*.yaml")])
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
LONGEST = 10_000  # bytes of the README
SETTINGS = {
    **dict.fromkeys(("sft", "sft.train"), "sft.settings"),
    **dict.fromkeys(("rl", "rl.train", "rl.serve"), "rl.settings"),
    "sft.papers.gpt4roi": "sft.papers.gpt4roi",
}
"""Where the `RunConfig` of each training command is."""
OTHERS = ("pip", "vllm", "langgraph", "pytest", ".venv/bin/pre-commit")  # programs whose options are not ours
MODULES_OF_OTHERS = ("pytest", "lmms_eval")
COMMANDS = (
    *("ask", "collect", "compare", "data", "eval", "mcp", "merge"),
    *("regions", "rollout", "scenes", "serve", "spots", "view"),
)
VALUES = {"seed": "1", "number": "1", "split": "val"}  # of variables in scripts that stand where not any text may
OF_OTHERS = {
    "--install",
    "--list",
    "--port",
    "--test",
}  # options that guides name, of scripts and of cof_agent.backends.serve

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_ASSIGNED = re.compile(r"[A-Z_]+=")
_OURS = re.compile(r'^ *(?:"\$cof"|\.venv/bin/cof|\.venv/bin/python -m|measure) .*$', re.MULTILINE)
_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


def test_links_resolve() -> None:
    lost = [f"{name(guide)}: {link}" for guide in GUIDES for link in links(guide) if not resolves(guide, link)]
    assert not lost, "\n".join(lost)


def links(guide: Path) -> list[str]:
    """The relative links of a guide, pictures included; those in code are none."""
    text = re.sub(r"`[^`\n]*`", "", _FENCED.sub("", guide.read_text("utf-8")))
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def resolves(guide: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = (guide.parent / path).resolve() if path else guide
    return target.exists() and (not heading or heading in anchors(target))


def anchors(guide: Path) -> set[str]:
    """The headings of a guide as GitHub names them in links."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", guide.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= LONGEST


@pytest.mark.parametrize("path", [*GUIDES, *HEADS, *SCRIPTS], ids=lambda path: name(path))
def test_commands_are_accepted(path: Path) -> None:
    wrong = [f"{shlex.join(words)}\n    {fault}" for words in commands(path) if (fault := fault_of(words))]
    assert not wrong, "\n".join(wrong)


def test_every_guide_of_a_room_shows_a_command() -> None:
    # What is read above is what a reader copies: without this, a fence of another name would hide commands from the check.
    silent = [name(guide) for guide in GUIDES if guide.name == "README.md" and not [*commands(guide)]]
    assert not silent


def commands(path: Path) -> Iterator[list[str]]:
    """The commands of a guide's bash blocks, of a configuration's head, or of a script as far as they are ours; as words."""
    text = path.read_text("utf-8")
    if path.suffix == ".sh":
        yield from map(plain, _OURS.findall(text.replace("\\\n", " ")))
        return
    head = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#   "))
    blocks = [block for language, block in _FENCED.findall(text) if language == "bash"]
    for block in blocks if path.suffix == ".md" else [head]:
        waiting = ""
        for line in block.replace("\\\n", " ").splitlines():
            waiting = f"{waiting}\n{line}" if waiting else line
            try:
                words = shlex.split(waiting, comments=True)
            except ValueError:  # within quotes that the next line goes on with
                continue
            waiting = ""
            if words:
                yield words
        assert not waiting, f"{name(path)}: a quotation mark is not closed: {waiting}"


def plain(line: str) -> list[str]:
    """A script's line as words, up to where its output goes; variables stand for themselves or for their default."""
    words = shlex.split(_DEFAULT.sub(r"\1", line))
    end = next((number for number, word in enumerate(words) if re.match(r"\d?>|&", word)), len(words))
    shown = [re.sub(r"\$(seed|number|split)\b", lambda found: VALUES[found[1]], word) for word in words[:end]]
    program, *rest = [word for word in shown if word != "$@" and word != "${options[@]}"]
    if program == "measure":  # see scripts/measure.sh
        return ["cof", "eval", "-o", *rest]
    return [program if program.endswith("python") else "cof", *rest]


def fault_of(words: list[str]) -> str | None:
    """What is wrong with a command; None for one that would run."""
    while _ASSIGNED.match(words[0]):
        words = words[1:]
    lost = [word for word in words if word.split("/")[0] in ROOMS and "/" in word and not (ROOT / word).exists()]
    if lost:
        return f"there is no {lost[0]}"
    program, *rest = words
    if program == "cof":
        return fault_of_cof(rest)
    if program in ("python", ".venv/bin/python", ".venv-vllm/bin/python", ".venv-verl/bin/python"):
        return fault_of_module(rest[1:]) if rest[0] == "-m" else None
    if program == "accelerate":
        return fault_of_module(rest[rest.index("-m") + 1 :])
    if program in ("bash", "sbatch"):
        script = next((word for word in rest if word.endswith((".sh", ".sbatch", "/run"))), None)
        return None if script and (ROOT / script).exists() else f"{program} of no script here"
    return None if program in OTHERS else f"{program} is no program that the guides may use"


def fault_of_module(words: list[str]) -> str | None:
    module, *rest = words
    if module in MODULES_OF_OTHERS:
        return None
    if find_spec(module) is None:
        return f"there is no module {module}"
    if module == "cof_agent.cli":
        return fault_of_cof(rest)
    return fault_of_keys(module, rest) if module in SETTINGS else None


def fault_of_cof(arguments: list[str]) -> str | None:
    """What the parser of `cof` says of these arguments, or of training the settings."""
    if arguments[0] in SETTINGS:
        return fault_of_keys(arguments[0], arguments[1:])
    try:
        cli.parser(arguments[0]).parse_args(arguments)
    except InputError as error:
        return str(error)
    return None


def fault_of_keys(training: str, arguments: list[str]) -> str | None:
    given = [word.split("=")[0].lstrip("-").replace("-", "_") for word in arguments if re.match(r"--?[a-z]", word)]
    unknown = [key for key in given if key not in keys(training)]
    if unknown:
        return f"{training} has no setting {unknown[0]}"
    try:
        _, left = parser_of(training).parse_known_args([_named(word) for word in arguments])
    except InputError as error:
        return str(error)
    lost = [word for word in left if not word.startswith("--")]
    return f"{lost[0]} is no value of a setting of {training}" if lost else None


def _named(word: str) -> str:
    """An option as the parser of settings knows it."""
    name, equals, value = word.partition("=")
    if not re.match(r"--?[a-z]", name):
        return word
    short = {"-o": "--output_dir", "--output": "--output_dir", "--model": "--model_name_or_path"}
    return short.get(name, f"--{name.lstrip('-').replace('-', '_')}") + equals + value


@cache
def parser_of(training: str) -> argparse.ArgumentParser:
    """The parser of a training's settings, with the options that `cof sft` and `cof rl` take out before; nothing is required."""
    from trl import GRPOConfig, SFTConfig

    from cof_agent.training.parser import KeyParser

    own = import_module(SETTINGS[training]).RunConfig
    parser = KeyParser(own, GRPOConfig if training.startswith("rl") else SFTConfig)
    for action in parser._actions:
        action.required = False
    for taken in ("--config", "--processes", "--accelerate", "--host"):
        parser.add_argument(taken)
    return parser


@cache
def keys(training: str) -> frozenset[str]:
    """The settings of a training, and what `cof sft` and `cof rl` have for options beside them."""
    from trl import GRPOConfig, ModelConfig, SFTConfig

    own = import_module(SETTINGS[training]).RunConfig
    kinds = (own, GRPOConfig if training.startswith("rl") else SFTConfig, ModelConfig)
    options = {"config", "model", "o", "output", "processes", "accelerate", "help", "host"}
    return frozenset({field.name for kind in kinds for field in fields(kind)} | options)


def test_options_in_prose_exist(capsys: pytest.CaptureFixture[str]) -> None:
    known = {f"--{key}" for training in ("sft", "rl") for key in keys(training)}
    known |= {option.replace("_", "-") for option in known} | OF_OTHERS
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        known |= set(_OPTION.findall(capsys.readouterr().out))
    said = [(guide, option) for guide in GUIDES if guide.name != "CHANGELOG.md" for option in in_prose(guide)]
    lost = {f"{name(guide)}: {option}" for guide, option in said if option not in known}
    assert not lost, "\n".join(sorted(lost))


def in_prose(guide: Path) -> list[str]:
    """The options that a guide names between backquotes, outside its blocks."""
    spans = re.findall(r"`([^`\n]*)`", _FENCED.sub("", guide.read_text("utf-8")))
    return [option for span in spans for option in _OPTION.findall(span)]


def test_python_in_guides_names_what_there_is() -> None:
    lost = [f"{name(guide)}: {one}" for guide in GUIDES for one in imported(guide) if not exists(*one)]
    assert not lost, "\n".join(lost)


def imported(guide: Path) -> Iterator[tuple[str, str]]:
    """Module and name of everything that a guide's Python imports from us."""
    for language, text in _FENCED.findall(guide.read_text("utf-8")):
        for node in ast.walk(ast.parse(text)) if language == "python" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ROOMS:
                yield from ((str(node.module), alias.name) for alias in node.names)


def exists(module: str, imported: str) -> bool:
    if find_spec(module) is None:
        return False
    return hasattr(import_module(module), imported) or find_spec(f"{module}.{imported}") is not None


def test_json_in_guides_is_json() -> None:
    for guide in GUIDES:
        for language, text in _FENCED.findall(guide.read_text("utf-8")):
            for line in text.splitlines() if language == "json" else ():
                json.loads(line)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
