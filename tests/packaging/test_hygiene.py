"""What must not stand in any file of the project, and what must agree."""

import re
import shutil
import subprocess
import tomllib
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


def test_the_version_is_that_of_the_newest_entry_of_the_changelog():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = r"^## \[(\d+\.\d+\.\d+)\] - (?:unreleased|\d{4}-\d\d-\d\d)$"
    versions = re.findall(heading, changelog, re.MULTILINE)
    assert versions[0] == project["version"]
    assert len(versions) == changelog.count("\n## [") - changelog.count("\n## [Unreleased]")
