"""Who may import whom: the contracts in `pyproject.toml` hold, notice a break, and stand on the page."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "lfpc_rewards"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'integrations'}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The sources and the contracts, to be broken."""
    root = tmp_path_factory.mktemp("copied")
    for folder in ("lfpc_rewards", "integrations/lfpc_trl"):
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


BREAKS = [
    ("upwards", "integrations/lfpc_trl/pictures/sizes.py", "from lfpc_trl.data.rows import Row"),
    ("beside", "integrations/lfpc_trl/data/rows.py", "import lfpc_trl.models.families"),
    ("inside a function", "integrations/lfpc_trl/errors.py", "def f():\n    from lfpc_trl.demo import run"),
    ("in a circle", "integrations/lfpc_trl/pictures/sizes.py", "from lfpc_trl.pictures import crops"),
    ("the adapter from the core", "lfpc_rewards/boxes.py", "import lfpc_trl.pictures"),
    ("torch from the core", "lfpc_rewards/boxes.py", "def f():\n    import torch"),
    ("a folder without a place", "integrations/lfpc_trl/attic/__init__.py", ""),
]


@pytest.mark.parametrize(("file", "line"), [each[1:] for each in BREAKS], ids=[each[0] for each in BREAKS])
def test_the_contracts_notice_an_import(copied, file, line):
    path = copied / file
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before or ''}\n{line}\n", encoding="utf-8")
    try:
        done = lint(copied)
    finally:
        path.write_text(before or "", encoding="utf-8")
        if before is None:
            shutil.rmtree(path.parent)
    assert done.returncode == 1, done.stdout + done.stderr


# --- the core ----------------------------------------------------------------------------------------


def imported(source: str) -> Iterator[str]:
    """Every imported name, as dotted text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used in this project"
            yield str(node.module)


def foreign(source: str) -> list[str]:
    """What a module of the core imports beside numpy, numba, the standard library and the core."""
    allowed = {
        "lfpc_rewards",
        "numpy",
        "numba",
        "llvmlite",
        *sys.stdlib_module_names,
    }  # numba is made of llvmlite
    return sorted({name.partition(".")[0] for name in imported(source)} - allowed)


@pytest.mark.parametrize(
    "path", sorted(CORE.rglob("*.py")), ids=lambda path: path.relative_to(CORE).as_posix()
)
def test_the_core_imports_nothing_but_numpy_numba_and_the_standard_library(path):
    assert foreign(path.read_text(encoding="utf-8")) == []


def test_the_check_of_the_core_can_fail():
    assert foreign("import torch, math\ndef f():\n    from scipy.special import erf") == ["scipy", "torch"]
    assert foreign("import numpy as np\nfrom collections.abc import Sequence") == []


# --- the page ----------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")


def test_the_page_shows_the_layers_of_the_contract():
    contracts = SETTINGS["tool"]["importlinter"]["contracts"]
    [layers] = [each["layers"] for each in contracts if each["type"] == "layers"]
    [drawn] = re.findall(r"```\n(cli\n.*?)```", PAGE, re.DOTALL)
    names = [set(re.split(r" {3,}", line)[0].split()) for line in drawn.splitlines()]
    assert names == [set(layer.replace("|", " ").split()) for layer in layers]


def test_every_file_on_the_page_exists():
    paths = re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", PAGE)
    assert len(paths) > 20
    roots = (ROOT, ROOT / "integrations" / "lfpc_trl")
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []


def test_the_page_names_every_module_of_the_core():
    names = {path.stem for path in CORE.glob("*.py")} - {"__init__"} | {
        path.name for path in CORE.iterdir() if (path / "__init__.py").exists()
    }
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []
