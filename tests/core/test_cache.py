"""Compiled kernels on the disk: never old, found again, in the right place, and no loss without one."""

import ast
import compileall
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from numba import config

import lfpc_rewards
from lfpc_rewards import _cache, _jit

SOURCE = Path(lfpc_rewards.__file__).parent
processes = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="nothing is compiled, so nothing is kept")

# One kernel with a helper of another file, and one without.
FORM = """
from lfpc_rewards import format_reward
print(format_reward(["<think>so</think><answer>B</answer>"]).tolist())
"""
IOU = """
from lfpc_rewards import iou
print(iou([0, 0, 10, 10], [5, 0, 15, 10]).tolist())
"""
COUNTS = """
import sys
modules = [module for name, module in sys.modules.items() if name.startswith("lfpc_rewards")]
things = [thing for each in modules for thing in vars(each).values() if hasattr(thing, "stats")]
# Parts of kernels are compiled with them, and kept in them.
kernels = {id(thing): thing for thing in things if type(thing._cache).__name__ != "NullCache"}
print([sum(sum(getattr(kernel.stats, count).values()) for kernel in kernels.values())
       for count in ("cache_hits", "cache_misses")])
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package that may be changed, found by `run` and by no other process."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(SOURCE, tmp_path / "place" / "lfpc_rewards", ignore=ignored))


def start(copy, code, *options, **variables):
    """A Python process in an empty folder and with a home of its own that imports the package `copy`."""
    folder = copy.parent.parent
    (folder / "empty").mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    own = {"PYTHONPATH": str(copy.parent), "HOME": str(folder / "home"), "XDG_CACHE_HOME": ""}
    return subprocess.Popen(
        [sys.executable, *options, "-W", "error::RuntimeWarning", "-c", code],
        cwd=folder / "empty",
        env=inherited | own | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(process):
    """What a process printed, line by line, as Python values."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return [ast.literal_eval(line) for line in output.splitlines()]


def run(copy, code, *options, **variables):
    return printed(start(copy, code, *options, **variables))


def kept(folder):
    """The kernels below a folder, as paths in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.nbc"))


def change_tag_at(copy):
    """No tag is found any more."""
    path = copy / "_tags.py"
    old = path.read_text(encoding="utf-8")
    new = old.replace("            return tag\n    return -1", "            return -1\n    return -1")
    assert new != old
    path.write_text(new, encoding="utf-8")
    return old


# --- never old ---------------------------------------------------------------------------------------


@processes
def test_a_changed_helper_in_another_file_changes_the_reward_in_the_next_process(copy, tmp_path):
    folder = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run(copy, FORM, **folder) == [[0.0]]
    old = change_tag_at(copy)
    assert run(copy, FORM, **folder) == [[-1.0]]
    (copy / "_tags.py").write_text(old, encoding="utf-8")
    assert run(copy, FORM + COUNTS, **folder) == [[0.0], [1, 0]]  # as it was, and still there


@processes
def test_an_unchanged_package_compiles_nothing_again(copy):
    result, counts = run(copy, IOU + COUNTS)
    assert counts == [0, 1]
    assert run(copy, IOU + COUNTS) == [result, [1, 0]]


@processes
def test_what_is_compiled_after_the_source_changed_is_not_kept(copy):
    change = "import lfpc_rewards, pathlib; pathlib.Path(lfpc_rewards.__file__).with_name('new.py').touch()\n"
    [result] = run(copy, change + IOU)
    assert kept(copy.parent) == []
    assert run(copy, IOU + COUNTS)[0] == result
    assert len(kept(copy.parent)) == 1


CHANGES = [
    ("another text of the same length", lambda folder: (folder / "_a.py").write_text("x = 2\n")),
    ("a module more", lambda folder: (folder / "_c.py").write_text("")),
    ("a module less", lambda folder: (folder / "_a.py").unlink()),
    ("a module below", lambda folder: (folder / "below" / "_b.py").write_text("x = 3\n")),
    ("a module with another name", lambda folder: (folder / "_a.py").rename(folder / "_d.py")),
    ("lines that move from one module to the next", lambda folder: move_a_line(folder)),
]


def move_a_line(folder):
    (folder / "_a.py").write_text("")
    (folder / "below" / "_b.py").write_text("x = 1\nx = 1\n")


@pytest.fixture
def small(tmp_path):
    """A package of two modules, one in a folder below."""
    folder = tmp_path / "small"
    (folder / "below").mkdir(parents=True)
    (folder / "_a.py").write_text("x = 1\n")
    (folder / "below" / "_b.py").write_text("x = 1\n")
    return folder


@pytest.fixture
def told(monkeypatch, tmp_path):
    """The folder that `NUMBA_CACHE_DIR` would name."""
    monkeypatch.setattr(_cache.config, "CACHE_DIR", str(tmp_path / "told"))
    return tmp_path / "told"


@pytest.mark.parametrize(("_", "change"), CHANGES, ids=[case[0] for case in CHANGES])
def test_every_change_of_the_source_has_a_folder_of_its_own(small, told, _, change):
    before = _cache.Store(small)
    [old] = before.folders()
    change(small)
    [new] = _cache.Store(small).folders()
    assert old != new
    assert old.parent == new.parent == told
    assert before.folders() == []


def test_what_is_no_source_and_where_it_stands_change_nothing(small, told, tmp_path):
    [old] = _cache.Store(small).folders()
    (small / "__pycache__").mkdir()
    (small / "__pycache__" / "_a.cpython-311.pyc").write_text("")
    (small / "py.typed").write_text("")
    (small / ".#_a.py").symlink_to("nowhere")  # what Emacs leaves while a file is edited
    assert _cache.Store(small).folders() == [old]
    assert _cache.Store(small.rename(tmp_path / "moved")).folders() == [old]


@pytest.mark.parametrize(
    "library", [_cache.numba, _cache.llvmlite, _cache.np, lfpc_rewards], ids=lambda library: library.__name__
)
def test_every_version_has_a_folder_of_its_own(small, told, monkeypatch, library):
    [old] = _cache.Store(small).folders()
    monkeypatch.setattr(library, "__version__", "1.2.3")
    assert _cache.Store(small).folders() != [old]


@pytest.mark.parametrize(
    ("version", "optimize"), [("3.99.0", 0), (sys.version, 1)], ids=["another version", "option -O"]
)
def test_every_python_with_and_without_assertions_has_a_folder(small, told, monkeypatch, version, optimize):
    [old] = _cache.Store(small).folders()
    python = SimpleNamespace(version=version, flags=SimpleNamespace(optimize=optimize))
    monkeypatch.setattr(_cache, "sys", python)
    assert _cache.Store(small).folders() != [old]


def test_a_folder_behind_a_link_is_source_too(small, told, tmp_path):
    (small / "below").rename(tmp_path / "elsewhere")
    (small / "below").symlink_to(tmp_path / "elsewhere")
    [old] = _cache.Store(small).folders()
    (tmp_path / "elsewhere" / "_b.py").write_text("x = 3\n")
    assert _cache.Store(small).folders() != [old]


def test_a_function_that_an_import_hook_changed_is_another_kernel(small, told):
    def cache_of(body):
        names = {"__name__": "lfpc_rewards._kernels"}
        exec(f"def f(x):\n    return {body}", names)
        return _cache.KernelCache(names["f"], _cache.Store(small))

    target = SimpleNamespace(codegen=lambda: SimpleNamespace(magic_tuple=tuple))
    one, same, other = (cache_of(body)._identity((), target) for body in ("x + 1", "x + 1", "x * 2"))
    assert one == same != other


def test_a_source_that_changes_back_is_not_trusted_again(small, told):
    store = _cache.Store(small)
    [_] = store.folders()
    path, status = small / "_a.py", (small / "_a.py").stat()
    path.write_text("x = 2\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert store.folders() == []
    path.write_text("x = 1\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.folders() == []


# --- in the right place ------------------------------------------------------------------------------


@processes
@pytest.mark.parametrize("told", [True, False], ids=["NUMBA_CACHE_DIR", "beside the source"])
def test_a_users_own_kernels_are_cached_where_numba_puts_them(copy, tmp_path, told):
    mine = tmp_path / "mine" / "mine.py"
    mine.parent.mkdir()
    mine.write_text("from numba import njit\n\n\n@njit(cache=True)\ndef double(x):\n    return 2 * x\n")
    code = f"import sys\nsys.path.append({str(mine.parent)!r})\nfrom mine import double\nprint(double(4))\n"
    folder = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")} if told else {}
    place = tmp_path / "cache" if told else mine.parent

    assert run(copy, code, **folder) == [8]
    [theirs] = kept(place)
    shutil.rmtree(place if told else place / "__pycache__")
    run(copy, IOU + code + IOU, **folder)
    assert [path for path in kept(place) if "iou" not in path] == [theirs]
    ours = tmp_path / "cache" if told else copy / "__pycache__"
    assert len([path for path in kept(ours) if "iou" in path]) == 1


@processes
def test_a_place_that_cannot_be_written_is_passed_over_and_without_any_nothing_is_kept(copy, tmp_path):
    (copy / "__pycache__").write_text("not a folder")
    (tmp_path / "file").write_text("not a folder")
    result, _ = run(copy, IOU + COUNTS, NUMBA_CACHE_DIR=str(tmp_path / "file"))
    [path] = kept(tmp_path)
    assert path.startswith("home/.cache/lfpc_rewards/lfpc_rewards-")
    assert run(copy, IOU + COUNTS) == [result, [1, 0]]

    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("not a folder")
    assert run(copy, IOU + COUNTS)[0] == result
    assert kept(tmp_path) == []


@processes
@pytest.mark.slow
def test_a_package_in_an_archive_uses_the_users_folder(copy, tmp_path):
    shutil.make_archive(str(tmp_path / "archive"), "zip", copy.parent)
    archived = tmp_path / "archive.zip" / "lfpc_rewards"
    first = run(archived, IOU + COUNTS)[0]
    assert run(archived, IOU + COUNTS) == [first, [1, 0]]
    assert len(kept(tmp_path / "home" / ".cache")) == 1

    change_tag_at(copy)
    shutil.make_archive(str(tmp_path / "archive"), "zip", copy.parent)
    assert run(archived, IOU + COUNTS)[1][0] == 0


@processes
@pytest.mark.slow
def test_a_package_without_source_is_known_by_its_bytecode(copy):
    def without_source():
        compileall.compile_dir(copy, legacy=True, quiet=2, force=True)
        for path in copy.rglob("*.py"):
            path.rename(path.with_suffix(".source"))

    without_source()
    first = run(copy, IOU + COUNTS)[0]
    assert run(copy, IOU + COUNTS) == [first, [1, 0]]

    for path in copy.rglob("*.source"):
        path.rename(path.with_suffix(".py"))
    change_tag_at(copy)
    without_source()
    assert run(copy, IOU + COUNTS)[1][0] == 0


def test_a_place_that_can_only_be_read_is_read_and_the_next_is_written(small, told, monkeypatch, tmp_path):
    [baked] = _cache.Store(small).folders()  # as in an image that was warmed up when it was built
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    (small / "__pycache__").write_text("not a folder")
    write = _cache.tempfile.TemporaryFile

    def refuse(**place):
        if place["dir"] == baked:
            raise PermissionError("read only")
        return write(**place)

    monkeypatch.setattr(_cache.tempfile, "TemporaryFile", refuse)
    assert _cache.Store(small).folders() == [baked, tmp_path / "user" / "lfpc_rewards" / baked.name]


def test_nobody_without_a_home_gets_a_folder_for_it(small, monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(_cache.Path, "home", homeless)
    monkeypatch.setattr(_cache.config, "CACHE_DIR", "")
    assert _cache.places(small) == [small / "__pycache__"]


def test_the_folders_used_last_stay_and_nothing_else_is_removed(small, told):
    others = [told / name for name in ("lfpc_rewards-mine", "place_0123456789abcdef", "lfpc_rewards")]
    folders = [told / f"lfpc_rewards-{number:016x}" for number in range(12)]
    for age, folder in enumerate([*folders, *others]):
        folder.mkdir(parents=True)
        (folder / "f.nbc").write_text("")
        os.utime(folder, (1e9 - age, 1e9 - age))
    [ours] = _cache.Store(small).folders()
    assert set(told.iterdir()) == {ours, *folders[: _cache.FOLDERS_KEPT - 1], *others}

    oldest = folders[_cache.FOLDERS_KEPT - 2]
    os.utime(ours, (1, 1))
    _cache.Store(small).folders()  # is used again
    (small / "_a.py").write_text("x = 4\n")
    [newest] = _cache.Store(small).folders()
    assert ours.exists()
    assert newest.exists()
    assert not oldest.exists()


# --- many at once ------------------------------------------------------------------------------------


@processes
@pytest.mark.slow
def test_processes_that_fill_one_cache_at_the_same_time_all_succeed_and_leave_it_whole(copy):
    # Four kinds of arguments for one kernel: numba's own cache gives all of them the same name here.
    code = """
import numpy as np
from lfpc_rewards import iou
kind = [np.float32, np.float64][{number} % 2]
box = np.array([[0, 0, 10, 10]] * 3, kind)
for first in ([box, box[::-1]] if {number} % 3 else [box]):
    print(iou(first, box + kind(5)).tolist())
"""
    running = [start(copy, code.format(number=number)) for number in range(6)]
    results = {str(value) for process in running for value in printed(process)}
    assert len(results) == 2  # float32 and float64
    names = kept(copy)
    again = [run(copy, code.format(number=number) + COUNTS)[-1] for number in (2, 5)]
    assert all(misses == 0 for _, misses in again)
    assert kept(copy) == names
    assert not list(copy.rglob("*.tmp"))


@processes
@pytest.mark.slow
def test_machines_with_other_cpus_share_a_folder_and_no_kernel(copy, tmp_path):
    folder = {"NUMBA_CACHE_DIR": str(tmp_path / "home_of_all")}
    result, _ = run(copy, IOU + COUNTS, **folder)
    assert run(copy, IOU + COUNTS, **folder, NUMBA_CPU_NAME="generic")[0] == result
    paths = [Path(name) for name in kept(tmp_path / "home_of_all")]
    assert len(paths) == 2
    assert paths[0].parent == paths[1].parent
    assert run(copy, IOU + COUNTS, **folder) == [result, [1, 0]]
    assert run(copy, IOU + COUNTS, **folder, NUMBA_CPU_NAME="generic") == [result, [1, 0]]


# --- where it fails ----------------------------------------------------------------------------------


@processes
def test_a_damaged_file_is_compiled_again_and_replaced(copy):
    result, _ = run(copy, IOU + COUNTS)
    [path] = copy.rglob("*.nbc")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert run(copy, IOU + COUNTS) == [result, [0, 1]]
    assert path.stat().st_size == len(whole)


@pytest.mark.parametrize(("stop", "more"), [(0, b""), (-1, b""), (-1, b"?"), (None, b"?")])
def test_what_is_not_whole_is_not_read(tmp_path, stop, more):
    path = tmp_path / "f.nbc"
    _cache._write(path, b"iou_rows", b"code")
    path.write_bytes(path.read_bytes()[:stop] + more)
    assert _cache._read(path, b"iou_rows") is None


def test_a_file_is_read_only_under_the_name_and_types_that_it_was_written_for(tmp_path):
    _cache._write(tmp_path / "new" / "f.nbc", b"iou_rows(float64)", b"code")
    assert _cache._read(tmp_path / "new" / "f.nbc", b"iou_rows(float64)") == b"code"
    assert _cache._read(tmp_path / "new" / "f.nbc", b"iou_rows(float32)") is None
    assert _cache._read(tmp_path / "none.nbc", b"iou_rows(float64)") is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["f.nbc"]


def test_a_full_disk_is_no_error(tmp_path, monkeypatch):
    def full(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_cache.Path, "write_bytes", full)
    _cache._write(tmp_path / "f.nbc", b"iou_rows", b"code")
    assert list(tmp_path.iterdir()) == []


def test_a_numba_that_works_otherwise_costs_a_warning(small, told):
    cache = _cache.KernelCache(lfpc_rewards.iou, _cache.Store(small))
    with pytest.warns(
        RuntimeWarning, match=r"kernel could not be cached \(numba .*, AttributeError: .*'library'"
    ):
        cache.save_overload((), object())
    with pytest.warns(
        RuntimeWarning, match=r"kernel could not be cached \(numba .*, AttributeError: .*'refresh'"
    ):
        assert cache.load_overload((), object()) is None


def test_a_kernel_that_holds_addresses_of_its_process_is_not_kept_and_named(small, told):
    result = SimpleNamespace(library=SimpleNamespace(has_dynamic_globals=True))
    with pytest.warns(RuntimeWarning, match=r"geometry\.iou holds addresses of this process"):
        _cache.KernelCache(lfpc_rewards.iou, _cache.Store(small)).save_overload((), result)


def test_a_package_that_cannot_be_looked_at_is_not_kept(tmp_path, told):
    assert _cache.Store(tmp_path / "nothing" / "here").folders() == []


def twice(x):
    return 2 * x


@processes
def test_functions_from_elsewhere_and_inside_others_are_compiled_and_not_kept():
    def inside(x):
        return 2 * x

    inside.__module__ = "lfpc_rewards._kernels"
    for function in (twice, inside):
        kernel = _jit.kernel(function)
        assert kernel(4) == 8
        assert kernel.stats.cache_path is None


def test_recompiling_forgets_the_kernel_and_no_other(small, told):
    cache = _cache.KernelCache(lfpc_rewards.iou, _cache.Store(small))
    folder = Path(cache.cache_path)
    names = [f"lfpc_rewards.geometry.{name}-{'0' * 16}.nbc" for name in ("iou", "iou_matrix")]
    for name in names:
        (folder / name).write_text("")
    cache.flush()
    assert kept(folder) == names[1:]
