"""Is this machine fit to train on? One line per thing that has to be right.

Beside the standard library only `versions` and our errors are imported, and torch is asked in a process of
its own: whatever is missing or broken must end in a line, never in a traceback.
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

from lfpc_trl.errors import CPU_TORCH, brings_cuda, how_to_install, one_line
from lfpc_trl.versions import MATRIX, Package, distribution, is_in
from lfpc_trl.versions import installed as _installed

Level = Literal["ok", "warning", "problem"]


class Check(NamedTuple):
    """One line of the report.

    Attributes:
        level: `problem` stops a training, `warning` may.
        name: what was looked at.
        text: what was found.
        advice: what to do about it; empty where nothing is.
    """

    level: Level
    name: str
    text: str
    advice: str = ""


GIB = 1 << 30
_WORK_GIB = 50
"""A checkpoint of 3.75 billion parameters with the state of AdamW takes 45 GB."""

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
    """Look at everything; takes seconds, changes nothing."""
    checks: list[Check] = []
    for name, look in (
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
        checks += _guarded(name, look)
    return checks


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(look())
    except Exception as error:  # the report must come, whatever a strange machine answers
        return [Check("warning", name, f"could not be looked at ({type(error).__name__}: {one_line(error)})")]


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
    """What the matrix says about a version.

    Args:
        package: a line of the matrix.
        version: as installed; None where it is not.
    """
    if version is None and package.extra is None:
        return Check("ok", package.name, f"not installed ({package.note})")
    if version is None:
        level: Level = "warning" if package.extra else "problem"
        advice = how_to_install(package.extra or "")
        if package.name == "torch" and brings_cuda():
            advice += f"; {CPU_TORCH}"
        return Check(level, package.name, "not installed", advice)
    if not is_in(version, package.supported):
        advice = f"pip install '{package.name}{package.supported}'"
        return Check("problem", package.name, f"{version} is not supported", advice)
    if package.tested and is_in(version, f">={package.tested[0]},<={package.tested[-1]}"):
        return Check("ok", package.name, version)
    tested = f"tested with {' to '.join(package.tested)}" if package.tested else "not tested yet"
    # What nobody has tested is worth a line, but no reason to keep people from it.
    return Check("warning", package.name, f"{version}, {tested}")


def _requirements() -> Iterator[Check]:
    """What installed packages demand of each other, from their own metadata: pip does not look again."""
    if importlib.util.find_spec("packaging") is None:
        return  # comes with transformers: without it there is nothing to compare
    from packaging.requirements import Requirement

    names = {package.name for package in MATRIX} | {"torchvision"}
    optional = [package.name for package in MATRIX if package.extra is None]
    for name in sorted(names):
        for text in (importlib.metadata.requires(distribution(name)) or []) if _installed(name) else []:
            needed = Requirement(text)
            version = _installed(needed.name)
            asked = needed.marker is None or any(
                needed.marker.evaluate({"extra": x}) for x in ["", *optional]
            )
            if needed.name.lower() not in names or version is None or not asked:
                continue
            if not needed.specifier.contains(version, prereleases=True):
                wanted = f"{needed.name}{needed.specifier}"
                text = f"{name} {_installed(name)} needs {wanted}, got {version}"
                yield Check("problem", "requirements", text, f"pip install '{wanted}'")


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
    # transformers asks for the package, not whether it works, and then cannot load any Qwen-VL model.
    text = f"{version} cannot be imported ({_last_line(done.stderr)})"
    advice = "install the build for your torch"
    if importlib.util.find_spec("vllm") is None:  # it cannot look at a model without
        advice = f"pip uninstall torchvision, or {advice}"
    yield Check("problem", "torchvision", text, advice)


def _gpu() -> Iterator[Check]:
    if _installed("torch") is None:
        return
    done = _python_process(_PROBE)
    if done.returncode != 0:
        yield Check("problem", "torch", f"cannot be imported ({_last_line(done.stderr)})", "install it again")
        return
    found = json.loads(done.stdout.strip().splitlines()[-1])
    driver = _driver()
    for index, (name, free, total, bf16) in enumerate(found["devices"]):
        text = f"{name}, {total / GIB:.0f} GiB ({free / GIB:.0f} free), driver {driver or 'unknown'}"
        if bf16:
            yield Check("ok", f"gpu {index}", f"{text}, bf16")
        else:
            yield Check("warning", f"gpu {index}", f"{text}, no bf16", "training computes in float32 on it")
    if not found["devices"] and driver is not None:
        text = f"driver {driver}, but torch {found['version']} (CUDA {found['cuda'] or 'none'}) sees no GPU"
        yield Check(
            "problem", "gpu", text, "install a torch build for your driver; check CUDA_VISIBLE_DEVICES"
        )
    elif not found["devices"]:
        yield Check("warning", "gpu", "none", "enough for the demo and for checks, not for a real model")


def _driver() -> str | None:
    """The version of NVIDIA's driver, None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    return _last_line(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def _disk() -> Iterator[Check]:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    for name, path, wanted in (
        ("working directory", Path.cwd(), _WORK_GIB),
        ("Hugging Face cache", Path(os.environ.get("HF_HUB_CACHE", home / "hub")), 20),
        ("temporary files", Path(tempfile.gettempdir()), 2),
    ):
        there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
        free = shutil.disk_usage(there).free / GIB
        text = f"{path}, {free:.0f} GiB free"
        if not os.access(there, os.W_OK):
            yield Check("problem", name, f"{text}, not writable", "choose another place")
        elif free < 1:
            yield Check("problem", name, text, "make room")
        elif free < wanted:
            yield Check("warning", name, text, f"{wanted} GiB are needed soon")
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
    """The core keeps kernels in the folder that numba is told, else in its source's, else in the user's."""
    spec = importlib.util.find_spec("lfpc_rewards")
    source = Path(spec.origin).parent if spec is not None and spec.origin else None
    told = os.environ.get("NUMBA_CACHE_DIR")
    places = [Path(told)] if told else []
    places += [source / "__pycache__"] if source else []
    places.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lfpc_rewards")
    usable = next((place for place in places if _can_write(place)), None)
    if usable is None:
        advice = "set NUMBA_CACHE_DIR to a folder that can be written"
        yield Check("warning", "compiled kernels", "kept nowhere, every process compiles for seconds", advice)
    elif told and usable != Path(told):
        yield Check(
            "warning", "compiled kernels", f"NUMBA_CACHE_DIR={told} cannot be written", f"uses {usable}"
        )
    else:
        yield Check("ok", "compiled kernels", f"kept in {usable}")


def _can_write(folder: Path) -> bool:
    there = next((each for each in (folder.absolute(), *folder.absolute().parents) if each.exists()), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK)


def _processes() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS")
    start = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    text = f"{cores} cores, OMP_NUM_THREADS={told or 'unset'}, new processes by {start}"
    if told is not None and (not told.isdigit() or not 1 <= int(told) <= cores):
        advice = f"set OMP_NUM_THREADS to a number from 1 to {cores}"
        yield Check("warning", "processes", text, advice)
    else:
        yield Check("ok", "processes", text)
