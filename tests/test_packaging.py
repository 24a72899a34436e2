"""The package as others install it: what it imports is declared, and its wheel works outside the repository."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cof_agent import __version__
from cof_agent.geometry import Size
from cof_agent.scenes.write import write_scenes
from cof_agent.training.shipped import PACKAGES, shipped

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = ("cof_agent", "sft", "rl")
OWN = {*OURS, "tests", "scripts", "benches", *(script.stem for script in (ROOT / "scripts").glob("*.py"))}
TRAINING = ("cof_agent/training/", "sft/", "rl/")  # all of it needs the extra `train`
SERVING = ("cof_agent/server/",)  # needs the extra `serve`
HOSTS = {"lmms_eval", "verl", "hydra", "omegaconf", "transfer_queue"}  # load us, not we them; three are verl's
TRACKERS = {"trackio", "wandb"}  # only whoever names them with `report_to` needs them
DISTRIBUTIONS = packages_distributions()

Cof = Callable[..., subprocess.CompletedProcess[str]]


class Import(NamedTuple):
    module: str  # its first part
    path: str
    lazy: bool  # within a function, or for the type checker only


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    """The distributions that are installed with these extras."""
    needed = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    return {canonical(re.split(r"[^\w.-]", requirement)[0]) for requirement in needed}


def imports_of(*folders: str) -> Iterator[Import]:
    """What others have written, of what the modules in these folders import."""
    for folder in folders:
        yield from _imports_of(folder)


@cache
def _imports_of(folder: str) -> list[Import]:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module, lazy in _imports(ast.parse(path.read_text("utf-8")), lazy=False):
            name = module.partition(".")[0]
            if name not in sys.stdlib_module_names | OWN:
                found.append(Import(name, path.relative_to(ROOT).as_posix(), lazy))
    return found


def _imports(node: ast.AST, *, lazy: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield child.module or "", lazy
        typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        yield from _imports(child, lazy=lazy or typing or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))


def missing(found: Iterator[Import], allowed: set[str]) -> set[str]:
    """Imports that none of these distributions brings."""
    return {
        f"{one.path} imports {one.module}"
        for one in found
        if not allowed & {canonical(name) for name in DISTRIBUTIONS.get(one.module, [one.module])}
        and one.module not in HOSTS | TRACKERS
    }


def test_what_is_imported_with_a_module_is_installed_with_the_package() -> None:
    core = [one for one in imports_of(*OURS) if not one.lazy and not one.path.startswith(TRAINING + SERVING)]
    assert {"numpy", "PIL", "torch"} <= {one.module for one in core}
    assert missing(iter(core), declared()) == set()
    training = [one for one in imports_of(*OURS) if not one.lazy and one.path.startswith(TRAINING)]
    assert "trl" in {one.module for one in training}
    assert missing(iter(training), declared("train")) == set()
    serving = [one for one in imports_of(*OURS) if not one.lazy and one.path.startswith(SERVING)]
    assert {"fastapi", "uvicorn"} <= {one.module for one in serving}
    assert missing(iter(serving), declared("serve")) == set()


def test_what_is_imported_later_is_in_an_extra() -> None:
    extras = set(PROJECT["optional-dependencies"])
    assert missing(imports_of(*OURS), declared(*extras - {"dev"})) == set()
    assert missing(imports_of("tests", "scripts"), declared(*extras)) == set()


def test_a_shipped_configuration_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "sft/configs/deepspeed/zero2.json"
    assert shipped(name) == str(PACKAGES / name)
    for other in ("sft/configs/none.yaml", "sft/train.py", "README.md", "--config", ""):
        assert shipped(other) == other
    (tmp_path / "sft" / "configs" / "deepspeed").mkdir(parents=True)
    (tmp_path / name).write_text("{}")
    assert shipped(name) == name  # the one that is here


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves its traces beside the sources and takes up those of earlier ones."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in OURS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *offline, "-w", str(output), str(source)], check=True)
    (built,) = output.iterdir()
    return built


@pytest.fixture(scope="module")
def cof(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Cof:
    """`cof` as the wheel installs it into an environment that has the packages of this one, but not this checkout."""
    home, elsewhere = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("elsewhere")
    venv.create(home, with_pip=False)
    python = str(home / "bin" / "python")
    offline = ("--no-deps", "--no-index", "--quiet")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *offline, str(wheel)], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    # A folder named by a .pth file is searched, but its own .pth files, such as that of an editable install, are not read.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*arguments: str, program: str = "cof") -> subprocess.CompletedProcess[str]:
        command = [str(home / "bin" / program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment)

    where = "import cof_agent, sft, rl; print(cof_agent.__file__, sft.__file__, rl.__file__)"
    files = run("-c", where, program="python").stdout.split()
    assert len(files) == 3 and all(Path(file).is_relative_to(packages) for file in files), files
    return run


@pytest.mark.slow
def test_the_wheel_holds_every_file_that_is_read(wheel: Path) -> None:
    paths = [path for name in OURS for path in (ROOT / name).rglob("*") if path.is_file()]
    ours = {str(path.relative_to(ROOT)) for path in paths if "__pycache__" not in path.parts}
    assert {"sft/configs/nano.yaml", "cof_agent/nano/weights/model.safetensors"} <= ours
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in ours - held if not name.endswith("README.md")} == set()
    assert wheel.name.startswith(f"chain_of_focus-{__version__}-")


@pytest.mark.slow
def test_the_wheel_answers_a_question(cof: Cof, tmp_path: Path) -> None:
    assert cof("--version").stdout == f"chain-of-focus {__version__}\n"
    assert "usage: cof" in cof("--help").stdout
    write_scenes(tmp_path, count=1, seed=1, size=Size(896, 504), split="test")
    (picture,) = (tmp_path / "images").iterdir()
    asked = cof("ask", str(picture), "What is written on the sign?")
    assert asked.returncode in (0, 3), asked.stderr  # 3: no answer, which is nano's affair
    assert "overview" in asked.stdout


@pytest.mark.slow
def test_the_wheel_trains_by_a_shipped_configuration(cof: Cof) -> None:
    planned = cof("sft", "--config", "sft/configs/nano.yaml", "--model_name_or_path", "nano", "--dry_run", "true")
    assert planned.returncode == 0, planned.stderr
    assert "80,000" in planned.stdout  # samples, as the configuration says
    asked = ("--model_name_or_path", "nano", "--data", "none.jsonl", "--use_cpu", "true", "--dry_run", "true")
    refused = cof("rl", "--config", "rl/configs/qwen2.5-vl-7b-8gpu.yaml", *asked)
    assert refused.returncode == 2
    assert "none.jsonl" in refused.stderr  # DeepSpeed's file, which comes first, was found
