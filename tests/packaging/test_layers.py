"""Who may import whom, read from the source: also imports inside functions and for type checkers."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "lfpc_rewards"
ADAPTER = ROOT / "integrations" / "lfpc_trl"

# From the ground up. A module may import those of lower lines, none of its own line.
LAYERS = [
    ["errors", "images", "progress", "versions", "standalone", "evaluation.statistics"],
    ["doctor", "rows", "lazy_images", "journal", "pool", "placement"],
    ["run_directory", "pages.server", "pages.pictures"],
    ["annotate.journal", "viewer.runs", "locus.cues", "locus.attention", "evaluation.summary"],
    ["annotate.project", "viewer.app", "evaluation.questions", "evaluation.tables", "evaluation.examples"],
    ["annotate.app", "evaluation.page"],
    ["evaluation.outputs"],
    ["evaluation.comparison"],
    ["models", "prompts", "ladder"],
    ["convert.scratch", "convert.sources"],
    ["convert.pictures", "convert.text"],
    ["convert.drafts"],
    ["convert.verl", "convert.coco"],
    ["convert.label_studio"],
    ["convert.formats"],
    ["convert.run", "evaluation.layouts"],
    ["evaluation.formats"],
    ["synthesize.backgrounds", "synthesize.contents"],
    ["synthesize.scene"],
    ["synthesize.questions"],
    ["synthesize.run"],
    ["crop_tool", "engines", "prepare_model", "locus.task"],
    ["transcript", "preflight", "running", "evaluation.conditions"],
    ["rewards", "rollouts", "trajectories"],
    ["evaluation.work"],
    ["evaluation.records"],
    ["evaluation.results"],
    ["stages", "resolution", "evaluation.in_process", "trainer", "alerts", "check_data", "locus.evaluation"],
    ["recipe", "report"],
    ["launch", "train"],
    ["dry_run"],
    ["demo.world"],
    ["demo.small_model"],
    ["demo.warm_up"],
    ["demo.run"],
    [
        *("commands.annotate", "commands.check_data", "commands.compare", "commands.convert"),
        *("commands.demo", "commands.doctor"),
        *("commands.prepare_model", "commands.select_resolution", "commands.synthesize", "commands.train"),
        *("commands.eval", "commands.locus_data", "commands.view"),
    ],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules(package: Path) -> dict[str, Path]:
    """Dotted name below the package: file; packages' own `__init__` are left out."""
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in sorted(package.rglob("*.py"))
        if path.name != "__init__.py"
    }


def imported(source: str) -> Iterator[str]:
    """Every imported name, as dotted text; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used in this project"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(name: str, source: str) -> list[str]:
    """What a module of the adapter imports although it may not."""
    found = []
    for target in imported(source):
        below = target.removeprefix("lfpc_trl.")
        used = next((each for each in LEVEL if f"{below}.".startswith(f"{each}.")), None)
        if below != target and used is not None and LEVEL[used] >= LEVEL[name]:
            found.append(f"{name} imports {used}")
    return found


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


@pytest.mark.parametrize("name", modules(ADAPTER))
def test_imports_in_the_adapter_flow_one_way(name):
    assert name in LEVEL, f"{name} has no place in LAYERS"
    assert upward(name, modules(ADAPTER)[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", modules(CORE))
def test_the_core_imports_nothing_but_numpy_numba_and_the_standard_library(name):
    assert foreign(modules(CORE)[name].read_text(encoding="utf-8")) == []


def test_every_layer_exists():
    assert sorted(LEVEL) == sorted(modules(ADAPTER))


UPWARD = [
    ("above", "images", "from lfpc_trl.rows import Row", ["images imports rows"]),
    ("beside", "models", "import lfpc_trl.prompts", ["models imports prompts"]),
    ("itself", "rows", "import lfpc_trl.rows", ["rows imports rows"]),
    ("inside a function", "train", "def f():\n    from lfpc_trl.demo import run", ["train imports demo.run"]),
    ("a module from the package", "rows", "from lfpc_trl import train", ["rows imports train"]),
    ("below", "rows", "from lfpc_trl.images import Size", []),
    ("a name that begins alike", "rows", "from lfpc_trl.images import rows", []),
    ("the core", "images", "from lfpc_rewards import Frame", []),
]


@pytest.mark.parametrize(("_", "name", "source", "expected"), UPWARD, ids=[case[0] for case in UPWARD])
def test_the_check_of_the_adapter_can_fail(_, name, source, expected):
    assert upward(name, source) == expected


def test_the_check_of_the_core_can_fail():
    assert foreign("import torch, math\ndef f():\n    from lfpc_trl.rows import Row") == ["lfpc_trl", "torch"]
    assert foreign("import numpy as np\nfrom collections.abc import Sequence") == []


def test_the_page_on_architecture_names_every_module():
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    names = {name.partition(".")[0] for name in [*modules(ADAPTER), *modules(CORE)]}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
