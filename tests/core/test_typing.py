"""What a type checker says of code that uses the package: misspelt names are errors, right ones are not.

mypy reads this text once, as a user's file; the errors that it must find stand behind their lines.
"""

import re
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]

USER_CODE = """
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import lfpc_rewards as lr
from lfpc_rewards import FrameName, GroundingParts, LocusParts, Reduce, adapters, convert_frame, presets

box, size = [0, 0, 1, 1], (8, 8)
convert_frame(box, "shown", "original", original_size=size, shown_size=size)
convert_frame(box, lr.Frame.RELATIVE, "relative_1000")
convert_frame(box, "shwon", "original")  # error: arg-type
convert_frame(box, "original", "Original")  # error: arg-type
lr.locus_reward([""], [box], frame="relative")
lr.locus_reward([""], [box], frame="orginal")  # error: arg-type
adapters.CropsOf("shown")
lr.adapters.CropsOf(lr.Frame.SHOWN)
adapters.CropsOf("show")  # error: arg-type
lr.convert_boxes(box, "xywh", "xyxy")
lr.convert_boxes(box, "xyhw", "xyxy")  # error: arg-type
lr.grounding_reward([], [], size, reduce="first")
lr.grounding_reward([], [], size, reduce="worst")  # error: arg-type
lr.lfpc_reward([], [], reduce="worst")  # error: arg-type

assert_type(lr.grounding_reward([], [], size), NDArray[np.float64])
assert_type(lr.locus_reward([], []), NDArray[np.float64])
assert_type(lr.grounding_parts([], [], size), GroundingParts)
assert_type(lr.locus_parts([], []), LocusParts)
presets.treevgr([], [])
lr.presets.treevgr([], [])
lr.presets.treevrg([], [])  # error: attr-defined
lr.iuo(box, box)  # error: attr-defined


def choose(frame: FrameName, reduce: Reduce) -> None:
    convert_frame(box, frame, "original")
    lr.grounding_reward([], [], size, reduce=reduce)
    lr.locus_reward([], [], frame=frame)


def read(frame: str) -> None:
    convert_frame(box, frame, "original")  # error: arg-type
    convert_frame(box, lr.Frame(frame), "original")
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """(line, code) of each error that mypy finds in the user's file."""
    folder = tmp_path_factory.mktemp("typing")
    path = folder / "user.py"
    path.write_text(USER_CODE, encoding="utf-8")
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\nfollow_imports = silent\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", str(ROOT))
        patch.chdir(folder)
        out, errors, _ = api.run(["--config-file", "mypy.ini", "--no-error-summary", path.name])
    assert errors == ""
    found = re.findall(r"^user\.py:(\d+): error: .*\[([a-z-]+)\]$", out, re.MULTILINE)
    assert found, out
    return [(int(line), code) for line, code in found]


def test_mypy_finds_misspelt_names_and_knows_what_rewards_give(said):
    lines = enumerate(USER_CODE.splitlines(), start=1)
    expected = [(number, line.split("# error: ")[1]) for number, line in lines if "# error: " in line]
    assert said == expected
