"""Checks whether this machine can train, with one line per requirement.

Apart from the standard library only `versions` and our errors are imported, and torch is queried in a
separate process: anything missing or broken must give a line, never a traceback.
"""

import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from lfpc_trl.errors import CPU_TORCH, how_to_install, one_line, pip_installs_cuda
from lfpc_trl.versions import MATRIX, Package, distribution, is_in
from lfpc_trl.versions import installed as _installed

Level = Literal["ok", "warning", "problem"]


class Check(NamedTuple):
    """One line of the report.

    Attributes:
        level: `problem` stops a training, `warning` may.
        name: name of the check.
        text: the result.
        advice: how to fix it; empty if there is nothing to fix.
    """

    level: Level
    name: str
    text: str
    advice: str = ""


GIB = 1 << 30
_WORK_GIB = 50
"""A checkpoint of 3.75 billion parameters with AdamW state takes 45 GB."""

_PROBE = """
import json
found = {}
import torch
found["version"], found["cuda"] = torch.__version__, torch.version.cuda
found["devices"] = []
for index in range(torch.cuda.device_count()):
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    with torch.cuda.device(index):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    found["devices"].append([properties.name, free, total, bf16])
print(json.dumps(found))
"""


def diagnose() -> list[Check]:
    """Run all checks; takes seconds, changes nothing."""
    checks: list[Check] = []
    for name, check in (
        ("python", _python),
        ("packages", _packages),
        ("requirements", _requirements),
        ("torchvision", _torchvision),
        ("gpu", _gpu),
        ("disk", _disk),
        ("fonts", _fonts),
        ("compiled kernels", _kernel_cache),
        ("processes", _processes),
    ):
        checks += _guarded(name, check)
    return checks


def _guarded(name: str, check: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(check())
    except Exception as error:  # a strange machine can raise anything, and the report must be complete
        return [Check("warning", name, f"could not be checked ({type(error).__name__}: {one_line(error)})")]


# --- versions ----------------------------------------------------------------------------------------


def _python() -> Iterator[Check]:
    text = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Check("ok", "python", text)
    ours = _installed("lfpc-rewards")
    yield Check("ok", "lfpc-rewards", ours or "used from a source folder, not installed")


def _packages() -> Iterator[Check]:
    for package in MATRIX:
        yield check_version(package, _installed(package.name))


def check_version(package: Package, version: str | None) -> Check:
    """Compare an installed version with the matrix.

    Args:
        package: a line of the matrix.
        version: the installed version; None if not installed.
    """
    if version is None and package.extra is None:
        return Check("ok", package.name, f"not installed ({package.note})")
    if version is None:
        level: Level = "warning" if package.extra else "problem"
        advice = how_to_install(package.extra or "")
        if package.name == "torch" and pip_installs_cuda():
            advice += f"; {CPU_TORCH}"
        return Check(level, package.name, "not installed", advice)
    if not is_in(version, package.supported):
        advice = f"pip install '{package.name}{package.supported}'"
        return Check("problem", package.name, f"{version} is not supported", advice)
    if package.tested and is_in(version, f">={package.tested[0]},<={package.tested[-1]}"):
        return Check("ok", package.name, version)
    tested = f"tested with {' to '.join(package.tested)}" if package.tested else "not tested yet"
    # An untested version is worth a warning, but not an error.
    return Check("warning", package.name, f"{version}, {tested}")


def _requirements() -> Iterator[Check]:
    """Check what installed packages require of each other, which pip does not check again."""
    if importlib.util.find_spec("packaging") is None:
        return  # it comes with transformers: without that there is nothing to compare
    from packaging.requirements import Requirement

    names = {package.name for package in MATRIX} | {"torchvision"}
    optional = [package.name for package in MATRIX if package.extra is None]
    for name in sorted(names):
        for text in (importlib.metadata.requires(distribution(name)) or []) if _installed(name) else []:
            needed = Requirement(text)
            version = _installed(needed.name)
            applies = needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ["", *optional]
            )
            if needed.name.lower() not in names or version is None or not applies:
                continue
            if not needed.specifier.contains(version, prereleases=True):
                required = f"{needed.name}{needed.specifier}"
                text = f"{name} {_installed(name)} needs {required}, got {version}"
                yield Check("problem", "requirements", text, f"pip install '{required}'")


# --- the machine -------------------------------------------------------------------------------------


def _python_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:160]


def _torchvision() -> Iterator[Check]:
    version = _installed("torchvision")
    if version is None:
        yield Check("ok", "torchvision", "not installed (not needed: pictures go through Pillow)")
        return
    done = _python_process("import torchvision")
    if done.returncode == 0:
        yield Check("ok", "torchvision", version)
        return
    # transformers checks only that the package exists, and with a broken one cannot load any Qwen-VL model.
    text = f"{version} cannot be imported ({_last_line(done.stderr)})"
    advice = "install the build for your torch"
    if importlib.util.find_spec("vllm") is None:  # vLLM cannot inspect models without torchvision
        advice = f"pip uninstall torchvision, or {advice}"
    yield Check("problem", "torchvision", text, advice)


def _gpu() -> Iterator[Check]:
    if _installed("torch") is None:
        return
    done = _python_process(_PROBE)
    if done.returncode != 0:
        yield Check("problem", "torch", f"cannot be imported ({_last_line(done.stderr)})", "install it again")
        return
    probe = json.loads(done.stdout.strip().splitlines()[-1])
    driver = _driver()
    for index, (name, free, total, bf16) in enumerate(probe["devices"]):
        text = f"{name}, {total / GIB:.0f} GiB ({free / GIB:.0f} free), driver {driver or 'unknown'}"
        if bf16:
            yield Check("ok", f"gpu {index}", f"{text}, bf16")
        else:
            yield Check("warning", f"gpu {index}", f"{text}, no bf16", "training computes in float32 on it")
    if not probe["devices"] and driver is not None:
        text = f"driver {driver}, but torch {probe['version']} (CUDA {probe['cuda'] or 'none'}) sees no GPU"
        yield Check(
            "problem", "gpu", text, "install a torch build for your driver; check CUDA_VISIBLE_DEVICES"
        )
    elif not probe["devices"]:
        yield Check("warning", "gpu", "none", "enough for the demo and for checks, not for a real model")


def _driver() -> str | None:
    """The version of the NVIDIA driver, None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    return _last_line(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def _disk() -> Iterator[Check]:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    for name, path, needed in (
        ("working directory", Path.cwd(), _WORK_GIB),
        ("Hugging Face cache", Path(os.environ.get("HF_HUB_CACHE", home / "hub")), 20),
        ("temporary files", Path(tempfile.gettempdir()), 2),
    ):
        existing = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
        free = shutil.disk_usage(existing).free / GIB
        text = f"{path}, {free:.0f} GiB free"
        if not os.access(existing, os.W_OK):
            yield Check("problem", name, f"{text}, not writable", "choose another folder")
        elif free < 1:
            yield Check("problem", name, text, "free some space")
        elif free < needed:
            yield Check("warning", name, text, f"a training needs {needed} GiB")
        else:
            yield Check("ok", name, text)


def _fonts() -> Iterator[Check]:
    if importlib.util.find_spec("PIL") is None:
        return
    from PIL import features

    if features.check("freetype2"):
        yield Check("ok", "fonts", "Pillow draws text")
    else:
        advice = "the demo cannot draw its signs; install Pillow's own build"
        yield Check("warning", "fonts", "Pillow was built without FreeType", advice)


def _kernel_cache() -> Iterator[Check]:
    """The core caches kernels in NUMBA_CACHE_DIR, else in its source folder, else in the user's cache."""
    spec = importlib.util.find_spec("lfpc_rewards")
    source = Path(spec.origin).parent if spec is not None and spec.origin else None
    configured = os.environ.get("NUMBA_CACHE_DIR")
    folders = [Path(configured)] if configured else []
    folders += [source / "__pycache__"] if source else []
    folders.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lfpc_rewards")
    usable = next((folder for folder in folders if _can_write(folder)), None)
    if usable is None:
        advice = "set NUMBA_CACHE_DIR to a writable folder"
        yield Check("warning", "compiled kernels", "not cached, every process compiles for seconds", advice)
    elif configured and usable != Path(configured):
        yield Check(
            "warning", "compiled kernels", f"NUMBA_CACHE_DIR={configured} is not writable", f"uses {usable}"
        )
    else:
        yield Check("ok", "compiled kernels", f"cached in {usable}")


def _can_write(folder: Path) -> bool:
    existing = next((each for each in (folder.absolute(), *folder.absolute().parents) if each.exists()), None)
    return existing is not None and existing.is_dir() and os.access(existing, os.W_OK)


def _processes() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    start = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    text = f"{cores} cores, OMP_NUM_THREADS={threads or 'unset'}, new processes by {start}"
    if threads is not None and (not threads.isdigit() or not 1 <= int(threads) <= cores):
        advice = f"set OMP_NUM_THREADS to a number from 1 to {cores}"
        yield Check("warning", "processes", text, advice)
    else:
        yield Check("ok", "processes", text)
