"""Rewards of one's own: what they are called with, and that a failure of ours costs the model nothing."""

import dataclasses
import math

import pytest

from lfpc_rewards import Frame
from lfpc_trl.errors import UserError
from lfpc_trl.own_code import OwnCode, load_code
from lfpc_trl.rollouts.own_rewards import (
    NamedReward,
    OwnReward,
    PresetReward,
    attempts,
    make_reward,
    read_entry,
)
from lfpc_trl.rollouts.transcript import score_transcripts
from tests.rollouts.test_transcript import RIGHT, SETTINGS, WRONG, call, crop, refusal

LOOKED = [call(), crop(), RIGHT]
REFUSED = [call([9, 9, 5, 5]), refusal(), WRONG]


def of(function):
    """A function of this file as the user's code."""
    return OwnCode(f"mine:{function.__name__}", function, __import__("pathlib").Path(__file__), "0" * 64)


def called(function, completions, rows):
    return OwnReward(of(function), Frame.SHOWN)(
        completions=completions,
        scored=score_transcripts(completions, rows, SETTINGS),
        row=rows,
        ending=["finished"] * len(rows),
        prompts=None,
    )


# --- what it is called with --------------------------------------------------------------------------


def test_an_attempt_tells_what_the_model_did_and_what_the_row_wants(row):
    row = dataclasses.replace(row, extras={"x_source": "mine"})
    seen = []

    def keep(given):
        seen.extend(given)
        return [0.5, None]

    assert called(keep, [LOOKED, REFUSED], [row, row]) == [0.5, None]
    first, second = seen
    assert (first.row_id, first.question, first.accepted) == (row.id, row.question, row.answer)
    assert (first.answer, first.turns, first.accuracy, first.well_formed) == ("A", 2, 1.0, True)
    assert (first.image_size, first.shown_size, first.frame) == (row.size, row.shown_size, "shown")
    assert first.targets == [region.tolist() for region in row.regions]
    assert first.extras == {"x_source": "mine"}
    assert [list(map(float, box)) for box in first.calls] == [[15.0, 15.0, 50.0, 45.0]]
    assert len(first.crops) == 1
    assert first.crops != first.calls  # pixels of the original, twice as large
    assert first.messages == LOOKED
    assert (second.crops, second.failures, second.accuracy) == ((), ("outside",), 0.0)
    assert math.isnan(second.iou)
    assert first.ending == "finished"


def test_attempts_are_plain_values(row):
    scored = score_transcripts([LOOKED], [row], SETTINGS)
    [attempt] = attempts([LOOKED], scored, [row], ["finished"], Frame.SHOWN)
    words = {type(value).__module__.partition(".")[0] for value in vars(attempt).values()}
    assert words <= {"builtins", "pathlib"}


# --- what is wrong with it ---------------------------------------------------------------------------


def too_few(given):
    return [1.0] * (len(given) - 1)


def words(given):
    return ["good"] * len(given)


def endless(given):
    return [math.inf] * len(given)


def one_number(given):
    return 1.0


def fails_without_a_crop(given):
    return [1 / len(each.crops) for each in given]


def fails_together(given):
    if len(given) > 1:
        raise RuntimeError("too many\nof them")
    return [0.0]


WRONG_ONES = [
    (too_few, r"^reward mine:too_few: must return one number for each of the 2 attempts, got 1; .*row q1"),
    (words, r"^reward mine:words: must return a finite number or None, got 'good' for row q1$"),
    (endless, r"^reward mine:endless: must return a finite number or None, got inf for row q1$"),
    (one_number, r"^reward mine:one_number: must return a list, got float$"),
    (
        fails_without_a_crop,
        r"^reward mine:fails_without_a_crop: raised ZeroDivisionError in line \d+ for row q2 \(",
    ),
    (
        fails_together,
        r"^reward mine:fails_together: raised RuntimeError in line \d+ for the 2 .* \(too many of",
    ),
]


@pytest.mark.parametrize(("function", "message"), WRONG_ONES, ids=[each.__name__ for each, _ in WRONG_ONES])
def test_a_mistake_is_one_error_that_names_the_function_and_the_row(function, message, row):
    rows = [dataclasses.replace(row, id="q1"), dataclasses.replace(row, id="q2")]
    with pytest.raises(UserError, match=message):
        called(function, [LOOKED, [WRONG]], rows)


def test_numbers_of_numpy_and_nan_are_understood(row):
    import numpy as np

    def scores(given):
        return np.array([0.25, np.nan])

    assert called(scores, [LOOKED, [WRONG]], [row, row]) == [0.25, None]


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "entry", "short", "is_code"),
    [
        ("mine:reward=0.5", NamedReward("mine:reward", 0.5), "reward", True),
        ("a.b:reward", NamedReward("a.b:reward", 1.0), "reward", True),
        ("dir/mine.py:reward=-1", NamedReward("dir/mine.py:reward", -1.0), "reward", True),
        ("presets:deepeyes=1.0", NamedReward("presets:deepeyes", 1.0), "deepeyes", False),
        ("presets:deepeyes:exact=0", NamedReward("presets:deepeyes:exact", 0.0), "deepeyes", False),
    ],
)
def test_an_entry_is_a_name_and_a_weight(text, entry, short, is_code):
    found = read_entry(text)
    assert (found, found.short, found.is_code) == (entry, short, is_code)


@pytest.mark.parametrize("text", ["mine", "mine=1", "mine:reward=much", "mine:reward=nan", 3, ""])
def test_another_entry_is_refused(text):
    with pytest.raises(UserError, match=r"reward must be module:function=WEIGHT, .*, got "):
        read_entry(text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere:f",
            r"reward nowhere:f: cannot be imported \(ModuleNotFoundError: No module named 'nowhere'\)",
        ),
        ("math:nothing", r"reward math:nothing: math has no function nothing, it has none"),
        ("nothing", "reward must be module:function or file.py:function, got 'nothing'"),
        ("broken.py:f", r"reward broken.py:f: cannot be imported \(ValueError: not today\)"),
        ("missing.py:f", r"reward missing.py:f: cannot be imported \(FileNotFoundError: "),
        ("whole.py:g", r"reward whole.py:g: whole.py has no function g, it has f"),
    ],
)
def test_code_that_is_not_there_is_named(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("raise ValueError('not today')")
    (tmp_path / "whole.py").write_text("def f(given):\n    return []\n")
    with pytest.raises(UserError, match=message):
        load_code(name, "reward")


def test_code_of_the_current_folder_is_found_with_its_digest(tmp_path, monkeypatch):
    import hashlib
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards_of_this_test.py").write_text("def f(given):\n    return [1.0] * len(given)\n")
    found = load_code("rewards_of_this_test:f", "reward")
    assert found.function([1, 2]) == [1.0, 1.0]
    assert found.file == tmp_path / "rewards_of_this_test.py"
    assert found.sha256 == hashlib.sha256(found.file.read_bytes()).hexdigest()
    monkeypatch.delitem(sys.modules, "rewards_of_this_test")


# --- published rewards -------------------------------------------------------------------------------


def test_a_preset_gets_the_columns_of_the_rows(row):
    reward = make_reward(read_entry("presets:deepeyes"), Frame.SHOWN, None)
    assert reward(completions=[LOOKED, [RIGHT], [WRONG]], row=[row] * 3) == [2.0, 0.8, 0.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deepeye", "reward presets:deepeye: no such preset"),
        ("deepeyes:fast", "reward presets:deepeyes:fast: the mode must be strict or exact, got 'fast'"),
        ("ui_r1", "reward presets:ui_r1: needs scales, which rows do not have"),
    ],
)
def test_a_preset_that_cannot_be_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        PresetReward(name)


def test_what_a_preset_refuses_shows_before_a_training(row):
    PresetReward("deepeyes").check([row])
    with pytest.raises(UserError, match=r"reward presets:deepeyes:exact: judge must be given in mode"):
        PresetReward("deepeyes:exact").check([row])
