"""The order of the rooms: arrows between modules run down, in no circle, and a room does not outgrow its size."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lowest first. A module belongs to the longest name that it begins with. It may import from its own room and from lower
# lines. Rooms on one line do not know each other.
LAYERS = (
    "cof_agent",
    "cof_agent.fields cof_agent.errors",
    "cof_agent.geometry cof_agent.cache cof_agent.nano cof_agent.data.spec",
    "cof_agent.output",
    "cof_agent.image cof_agent.trajectory cof_agent.plugins",
    "cof_agent.region_refs cof_agent.episodes cof_agent.tools",
    "cof_agent.protocol cof_agent.environment",
    "cof_agent.policy cof_agent.scoring cof_agent.scenes",
    "cof_agent.ocr",
    "cof_agent.config cof_agent.graphs cof_agent.backends cof_agent.data",
    "cof_agent.rollout cof_agent.nano.build cof_agent.detection",
    "cof_agent.evaluation cof_agent.teacher cof_agent.nano.install",
    "cof_agent.viewer",
    "cof_agent.strategies",
    "cof_agent.agent cof_agent.data.export",
    "cof_agent.training cof_agent.server",
    "cof_agent.commands",
    "cof_agent.integrations cof_agent.cli",
    "sft rl",
    "sft.nano",
    "sft.papers",
)
HEIGHT = {room: height for height, line in enumerate(LAYERS) for room in line.split()}

# `data: curriculum` hands over to nano's schooling, inside a function; no other training loads it.
ASKED_FOR = {("sft.measure", "sft.nano"), ("sft.plan", "sft.nano"), ("sft.settings", "sft.nano")}

LIGHT = ("", ".cli", ".config", ".policy", ".environment", ".backends.local.batching")
HEAVY = ("torch", "transformers", "trl", "langgraph", "langchain_core", "numpy", "pydantic")


def modules() -> dict[str, Path]:
    """Every module of the three packages by its name."""
    files = (file for package in ("cof_agent", "sft", "rl") for file in (ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imported(tree: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What a module imports, inside functions too, but not for the type checker only: a name, and the names out of it."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from imported(ast.Module(node.orelse, []))
                continue
            case ast.Import():
                yield from ((alias.name, ()) for alias in node.names)
            case ast.ImportFrom():
                assert node.level == 0 and node.module, "imports are absolute here"
                yield node.module, tuple(alias.name for alias in node.names)
        yield from imported(node)


def arrows_of(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """The modules that each module imports, of those given."""
    arrows: dict[str, set[str]] = {}
    for module, source in sources.items():
        named = {
            full if (full := f"{origin}.{name}") in sources else origin
            for origin, names in imported(ast.parse(source))
            for name in names or ("",)
        }
        arrows[module] = (named & sources.keys()) - {module}
    return arrows


def room_of(module: str) -> str:
    return max((room for room in HEIGHT if f"{module}.".startswith(f"{room}.")), key=len)


def upward(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """The arrows that the table forbids, in words."""
    found = []
    for module, targets in sorted(arrows.items()):
        for target in sorted(targets):
            here, there = room_of(module), room_of(target)
            if here != there and HEIGHT[there] >= HEIGHT[here] and (module, there) not in ASKED_FOR:
                found.append(f"{module} imports {target}")
    return found


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle of imports, empty without any."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    return arrows_of({name: file.read_text("utf-8") for name, file in modules().items()})


def test_the_table_names_what_is_there() -> None:
    assert not HEIGHT.keys() - modules().keys()


def test_no_circle(arrows: dict[str, set[str]]) -> None:
    assert circle(arrows) == []


def test_no_arrow_runs_up(arrows: dict[str, set[str]]) -> None:
    assert upward(arrows) == []


def test_what_is_asked_for_is_still_needed(arrows: dict[str, set[str]]) -> None:
    """An exception that nothing needs any more would let the next arrow through unseen."""
    assert {(module, room_of(target)) for module in arrows for target in arrows[module]} >= ASKED_FOR


def test_the_agent_knows_no_training(arrows: dict[str, set[str]]) -> None:
    trained = {
        (module, target)
        for module in arrows
        for target in arrows[module]
        if module.startswith("cof_agent") and not target.startswith("cof_agent")
    }
    assert trained == set()


def test_nobody_inside_goes_through_the_public_interface(arrows: dict[str, set[str]]) -> None:
    """`cof_agent` imports its names when they are used, which no table of layers sees."""
    assert [module for module in arrows if "cof_agent" in arrows[module]] == ["cof_agent.cli"]  # its version


def test_each_kind_of_import_is_seen() -> None:
    source = """
import cof_agent.errors
from cof_agent import policy
from cof_agent.agent import Agent
if TYPE_CHECKING:
    from cof_agent import cli
else:
    from cof_agent import cache
def late():
    with something:
        from cof_agent.scoring import accuracy
"""
    names = [f"cof_agent.{name}" for name in ("errors", "policy", "agent", "cli", "cache", "scoring")]
    seen = arrows_of({"cof_agent.tools": source, **dict.fromkeys(names, "")})["cof_agent.tools"]
    assert seen == set(names) - {"cof_agent.cli"}


def test_an_arrow_up_and_a_circle_are_found() -> None:
    up = arrows_of({"cof_agent.geometry": "from cof_agent import agent", "cof_agent.agent": ""})
    assert upward(up) == ["cof_agent.geometry imports cof_agent.agent"]
    assert circle(up) == []
    siblings = arrows_of({"rl.data": "from sft import frame", "sft.frame": "def late():\n import rl.data"})
    assert upward(siblings) == ["rl.data imports sft.frame", "sft.frame imports rl.data"]
    assert set(circle(siblings)) == {"rl.data", "sft.frame"}


def test_rooms_stay_small() -> None:
    assert len(list((ROOT / "cof_agent").glob("*.py"))) <= 16
    training = list((ROOT / "sft").glob("*.py"))
    assert len(training) < 10
    assert sum(len(file.read_text("utf-8").splitlines()) for file in training) < 1000


@pytest.mark.parametrize("module", LIGHT)
def test_nothing_heavy_is_loaded_before_it_is_needed(module: str) -> None:
    code = f"import sys, cof_agent{module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
