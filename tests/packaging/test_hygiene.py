"""What must not stand in any file of the project, and what must agree."""

import re
import shutil
import subprocess
import tomllib
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A path that exists on the machine of one author helps no reader.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work)/\w*", re.IGNORECASE)


def files() -> list[Path]:
    """Every file that is tracked or would be; without git there is nothing to ask."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in sorted(set(done.stdout.split("\0")) - {""}) if (path := ROOT / name).is_file()]


def offences(text: str) -> list[str]:
    """The machine paths in a text, with their lines."""
    return [
        f"line {number}: {found.group()}"
        for number, line in enumerate(text.splitlines(), start=1)
        if (found := MACHINE_PATH.search(line))
    ]


def test_no_file_names_a_path_of_one_machine():
    found = {}
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights and pictures
        if path != Path(__file__) and (lines := offences(text)):
            found[str(path.relative_to(ROOT))] = lines
    assert found == {}


@pytest.mark.parametrize("text", ["see /home/ann/x", "as /root/.cache", "(/Users/bob/data)"])
def test_the_check_can_fail(text):
    assert offences(f"fine\n{text}\n") != []


def test_the_check_lets_ordinary_words_pass():
    assert offences("/tmp/out, work/maintain, at home/away, ./root/x") == []


def released(changelog: str) -> list[tuple[tuple[int, ...], date]]:
    """(version, date) of each section, the newest first; what is not released yet may stand above them.

    Raises:
        ValueError: a section is neither "Unreleased", first of all, nor a version with its date.
    """
    headings = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    if headings[:1] == ["[Unreleased]"]:
        del headings[0]
    found = []
    for heading in headings:
        parts = re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heading)
        if parts is None:
            raise ValueError(f"no version with its date: {heading}")
        found.append((tuple(map(int, parts[1].split("."))), date.fromisoformat(parts[2])))
    return found


def test_the_version_is_that_of_the_newest_dated_section_of_the_changelog():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sections = released((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert ".".join(map(str, sections[0][0])) == project["version"]
    for newer, older in pairwise(sections):
        assert newer[0] > older[0]
        assert newer[1] >= older[1]


NO_SECTIONS = [
    ("a version without a date", "## [0.2.0]\n"),
    ("a version that is not released", "## [0.2.0] - unreleased\n"),
    ("a day that does not exist", "## [0.2.0] - 2026-02-30\n"),
    ("changes of the next version below the last one", "## [0.1.0] - 2026-11-28\n## [Unreleased]\n"),
]


@pytest.mark.parametrize(("_", "changelog"), NO_SECTIONS, ids=[case[0] for case in NO_SECTIONS])
def test_the_check_of_the_changelog_can_fail(_, changelog):
    with pytest.raises(ValueError, match=r"no version with its date|day"):
        released(changelog)


def test_sections_are_read_with_and_without_unreleased_changes():
    last = "## [0.1.0] - 2026-11-28\n\nText.\n"
    expected = [((0, 1, 0), date(2026, 11, 28))]
    assert released(f"# Changelog\n\n## [Unreleased]\n\n### Added\n\n{last}") == expected
    assert released(last) == expected
