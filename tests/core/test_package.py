"""The package as a whole: its names, what importing it loads, threads, forks and the version."""

import ast
import doctest
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import threading
import typing
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from numba import config

import lfpc_rewards as lr

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ["torch", "transformers", "trl", "datasets", "PIL", "lfpc_trl"]


def documented():
    page = (ROOT / "docs" / "reference" / "core.md").read_text(encoding="utf-8")
    return re.findall(r"^### `(\w+)", page, re.MULTILINE)


def test_all_public_names_are_documented_once_and_no_others():
    assert sorted(documented()) == sorted(lr.__all__)


def as_written(default):
    """A default as the page writes it: like Python, with texts and enums of text in double quotes."""
    return json.dumps(default) if isinstance(default, str) else repr(default)


def as_documented(name):
    """The signature of a function as the reference page writes it."""
    parameters = inspect.signature(getattr(lr, name)).parameters.values()
    said = []
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and "*" not in said:
            said.append("*")
        said.append(each.name if each.default is each.empty else f"{each.name}={as_written(each.default)}")
    return f"{name}({', '.join(said)})"


@pytest.mark.parametrize("name", [name for name in lr.__all__ if inspect.isfunction(getattr(lr, name))])
def test_signatures_and_defaults_on_the_reference_page_are_those_of_the_code(name):
    page = (ROOT / "docs" / "reference" / "core.md").read_text(encoding="utf-8")
    section = page.split(f"### `{name}`\n", 1)[1]
    written = re.search(rf"`(?:await )?({name}\(.*?\))`", section, re.DOTALL)[1]
    assert " ".join(written.split()) == as_documented(name)


def test_all_is_sorted_and_every_name_exists():
    assert lr.__all__ == sorted(lr.__all__)
    assert all(hasattr(lr, name) for name in lr.__all__)


ALIASES = ["BoxFormat", "FrameName", "Reduce"]
MODULES = ["adapters", "presets"]


@pytest.mark.parametrize("name", sorted({*lr.__all__} - {*ALIASES, *MODULES, "__version__"}))
def test_every_public_name_has_a_docstring_with_an_example_and_annotations(name):
    thing = getattr(lr, name)
    if name not in ("Crop", "ParsedCompletion", "GroundingParts", "LocusParts"):
        assert "Example:\n" in thing.__doc__
    if not isinstance(thing, type):
        for section in ("Args:", "Returns:", "Source:"):
            assert section in thing.__doc__, section
        arguments = thing.__code__.co_argcount + thing.__code__.co_kwonlyargcount
        assert len(thing.__annotations__) == arguments + 1


def test_init_holds_nothing_but_imports_names_and_the_version():
    tree = ast.parse(Path(lr.__file__).read_text(encoding="utf-8"))
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions == ["__dir__", "__getattr__"]
    assert {type(node) for node in tree.body} <= {
        *(ast.Expr, ast.Import, ast.ImportFrom, ast.Try, ast.Assign, ast.FunctionDef, ast.If)
    }


PUBLIC_MODULES = ["", ".adapters", ".presets", ".presets.tools"]


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_dir_lists_what_is_public_and_nothing_else(name):
    module = importlib.import_module(f"lfpc_rewards{name}")
    assert dir(module) == sorted(module.__all__)
    assert not any(each.startswith("_") for each in dir(module) if each != "__version__")
    assert all(hasattr(module, each) for each in dir(module))


def test_literals_of_names_are_those_that_functions_take():
    assert list(typing.get_args(lr.FrameName)) == [frame.value for frame in lr.Frame]
    for source in typing.get_args(lr.BoxFormat):
        assert lr.convert_boxes([1, 2, 3, 4], source, source).tolist() == [1, 2, 3, 4]
    for reduce in typing.get_args(lr.Reduce):
        assert lr.grounding_reward([[[0, 0, 1, 1]]], [[[0, 0, 1, 1]]], (9, 9), reduce=reduce) == 1


def test_submodules_are_loaded_when_they_are_asked_for():
    code = (
        "import sys, lfpc_rewards as lr\n"
        "def show_loaded():\n"
        "    print([name for name in ('adapters', 'presets') if f'lfpc_rewards.{name}' in sys.modules])\n"
        "dir(lr)\n"
        "show_loaded()\n"
        "lr.presets.treevgr\n"
        "show_loaded()\n"
        "from lfpc_rewards import adapters\n"
        "show_loaded()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n['presets']\n['adapters', 'presets']\n"


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lfpc_rewards' has no attribute 'iuo'"):
        lr.iuo  # noqa: B018 - looking is what raises


def test_version_is_that_of_the_installed_distribution_or_unknown(monkeypatch):
    try:
        assert lr.__version__ == metadata.version("lfpc-rewards")
    except metadata.PackageNotFoundError:
        assert lr.__version__ == "0+unknown"

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert importlib.reload(lr).__version__ == "0+unknown"
    monkeypatch.undo()
    importlib.reload(lr)


def loaded_by(statement):
    """Which of the frameworks a fresh Python has loaded after one statement."""
    code = f"{statement}; import sys; print(*[name for name in {FRAMEWORKS} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_and_using_the_core_loads_no_framework():
    assert loaded_by("import lfpc_rewards; lfpc_rewards.parse_completion('x')") == []


def test_the_check_above_can_fail(tmp_path):
    (tmp_path / "torch.py").write_text("")
    assert loaded_by(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import lfpc_rewards, torch") == [
        "torch"
    ]


SCORE = """
import lfpc_rewards as lr
def score():
    boxes = [[0, 0, 9, 9 + i] for i in range(50)]
    call = '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 1, 5, 5.5]}}</tool_call>'
    texts = [f"<think>{i}</think>{call * (i % 3)}<answer>{'AB'[i % 2]}</answer>" for i in range(600)]
    targets = lr.Targets([[[1, 1, 5, 5], [0, 0, 9, 20]]], (100, 100))
    return [
        lr.grounding_reward([boxes] * 20, targets[[0] * 20]).tolist(),
        lr.lfpc_reward(texts, ["B"] * 600, crops="requested", targets=targets[[0] * 600]).tolist(),
        [repr(rollout) for rollout in lr.parse_completions(texts)],
        lr.iou_matrix(boxes, boxes).tolist(),
    ]
"""


def test_threads_give_the_same_result():
    names = {}
    exec(SCORE, names)
    expected, results = names["score"](), []
    threads = [threading.Thread(target=lambda: results.append(names["score"]())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_workers_give_the_same_result():
    code = SCORE + (
        "import multiprocessing\n"
        "expected = score()\n"  # compiled in the parent, used in the children
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    assert pool.starmap(score, [()] * 4) == [expected] * 4\n"
        "print('same')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("same\n", 0), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled, so nothing is cached")
def test_processes_that_fill_one_cache_at_the_same_time_give_the_same_result(tmp_path):
    code = SCORE + "print(hash(repr(score())))\n"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": "0"}
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    printed = {process.communicate()[0] for process in running}
    assert len(printed) == 1
    assert all(process.returncode == 0 for process in running)
    assert any(tmp_path.rglob("*.nbc"))


def test_kernels_are_compiled_without_fast_mathematics_threads_or_numbas_cache(monkeypatch):
    from lfpc_rewards import _jit

    calls = []

    def njit(**options):
        calls.append(options)
        return lambda fn: fn

    monkeypatch.setattr(_jit, "njit", njit)
    monkeypatch.setattr(_jit, "keep", calls.append)
    monkeypatch.setattr(_jit.config, "DISABLE_JIT", 0)
    assert _jit.kernel(abs) is _jit.object_kernel(abs) is _jit.part(abs) is abs
    numpy_like = {"error_model": "numpy"}
    assert calls == [
        *(numpy_like | {"nogil": True}, abs),  # a kernel, which is kept
        *(numpy_like, abs),  # one that keeps the GIL
        numpy_like,
    ]


def test_without_jit_kernels_are_as_silent_as_compiled_ones(monkeypatch):
    from lfpc_rewards import _jit

    monkeypatch.setattr(_jit.config, "DISABLE_JIT", 1)
    assert _jit.kernel(lambda a: a / 0)(np.float64(1)) == np.inf


def test_the_examples_of_the_reference_page_run():
    page = (ROOT / "docs" / "reference" / "core.md").read_text(encoding="utf-8")
    examples = doctest.DocTestParser().get_doctest(page, {}, "core.md", None, 0)
    assert len(examples.examples) > 10
    assert doctest.DocTestRunner().run(examples).failed == 0
