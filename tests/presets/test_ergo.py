"""ERGO: the formula of the paper, read as its inference code reads; loopholes, the rules presets keep."""

import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfpc_rewards import presets
from lfpc_rewards.presets.systems.ergo import SYSTEM
from lfpc_rewards.presets.tools import ergo as tool
from tests.presets.contract import fools_exact_but_not_strict, keeps_the_contract, texts
from tests.presets.replay import close

SIZE, SHOWN = (400, 300), (200, 150)
SIGN, WALL, WHOLE = [10, 10, 50, 40], [100, 100, 150, 140], [0, 0, 200, 150]
"""Boxes as a model writes them: the red sign, a blank wall, all of the image."""


def sees(images, boxes, questions):
    """Reads "red" where a crop shows the sign, which is at 20, 20 to 100, 80 of the original."""
    return ["red" if x0 <= 20 and y0 <= 20 and x1 >= 100 and y1 >= 80 else "?" for x0, y0, x1, y1 in boxes]


def zoom(box):
    return f"<think>there</think><zoom>{box}</zoom>"


RED = "<think>so</think><answer>red</answer>"


def messages(*turns, image=True):
    """A rollout in which the tool replied to all turns but the last."""
    reply = {"role": "tool", "content": [{"type": "image" if image else "text", "text": "refused"}]}
    said = [{"role": "assistant", "content": turn} for turn in turns]
    return [each for turn in said[:-1] for each in (turn, reply)] + said[-1:]


def parts(mode, *rollouts, golds="red", reward_model=sees, sizes=(SIZE, SHOWN), **options):
    count = len(rollouts)
    return presets.ergo(
        list(rollouts),
        [golds] * count if isinstance(golds, str) else golds,
        questions=["Which colour?"] * count,
        images=list(range(count)),
        image_sizes=sizes[0],
        shown_sizes=sizes[1],
        reward_model=reward_model,
        mode=mode,
        **options,
    )


def row(mode, rollout, **options):
    return [float(part[0]) for part in parts(mode, rollout, **options)]


# --- the formula -------------------------------------------------------------------------------------

ROLLOUTS = [  # id, turns, (region, box, accuracy, format, total) in "exact", the same in "strict"
    ("the sign", (zoom(SIGN), RED), (1, 1, 1, 1, 3.5), (1, 1, 1, 1, 3.5)),
    ("a wall", (zoom(WALL), RED), (0, 1, 1, 1, 2.5), (0, 1, 1, 1, 2.5)),
    ("the whole image", (zoom(WHOLE), RED), (1, 0, 1, 1, 3), (0, 0, 1, 1, 2)),
    ("three fifths", (zoom([0, 0, 200, 90]), RED), (1, 1, 1, 1, 3.5), (1, 1, 1, 1, 3.5)),
    ("a little more", (zoom([0, 0, 200, 91]), RED), (1, 0, 1, 1, 3), (0, 0, 1, 1, 2)),
    ("beyond the image", (zoom([100, 80, 999, 999]), RED), (0, 1, 1, 1, 2.5), (0, 1, 1, 1, 2.5)),
    ("wrong", (zoom(SIGN), RED.replace("red", "blue")), (1, 1, 0, 1, 2.5), (1, 1, 0, 1, 2.5)),
    ("no zoom", (RED,), (1, 0, 1, 0, 2), (0, 0, 1, 0, 1)),
    ("no box", (zoom("the sign"), RED), (1, 0, 1, 1, 3), (0, 0, 1, 1, 2)),
    ("two boxes", (zoom(f"{SIGN}{WALL}"), RED), (1, 0, 1, 1, 3), (0, 0, 1, 1, 2)),
    ("words beside it", (zoom(f"the sign {SIGN}."), RED), (1, 1, 1, 1, 3.5), (1, 1, 1, 1, 3.5)),
    ("fractions", (zoom([0.1, 0.1, 0.5, 0.5]), RED), (1, 0, 1, 1, 3), (0, 0, 1, 1, 2)),
    ("no thinking", (f"<zoom>{SIGN}</zoom>", RED), (1, 1, 1, 1, 3.5), (1, 1, 1, 0, 2.5)),
    ("no answer", (zoom(SIGN), "<think>so</think>"), (1, 1, 0, 0, 1.5), (1, 1, 0, 0, 1.5)),
    ("nothing", ("",), (1, 0, 0, 0, 1), (0, 0, 0, 0, 0)),
]


@pytest.mark.parametrize(
    ("turns", "exact", "strict"), [r[1:] for r in ROLLOUTS], ids=[r[0] for r in ROLLOUTS]
)
def test_the_parts_are_those_of_the_formula(turns, exact, strict):
    assert close(row("exact", messages(*turns)), list(exact))
    assert close(row("exact", list(turns)), list(exact))
    assert close(row("strict", messages(*turns)), list(strict))


@pytest.mark.parametrize("box", [[50, 10, 10, 40], [150, 0, 150, 40], [9999, 9999, 9999, 9999]])
def test_where_the_tool_raises_there_is_no_number_and_strict_pays_nothing(box):
    assert close(row("exact", messages(zoom(box), RED)), [math.nan, math.nan, 1, 1, math.nan])
    assert close(row("strict", messages(zoom(box), RED)), [0, 0, 1, 1, 2])


def test_a_crop_without_area_is_shown_to_nobody():
    assert tool.crop(zoom([10, 0, 10, 150]), SIZE, SHOWN, min_pixels=3136, max_pixels=1003520).box[2:] == (
        20,
        300,
    )
    refuse = lambda *_: pytest.fail("asked")  # noqa: E731
    assert close(row("exact", messages(zoom([10, 0, 10, 150]), RED), reward_model=refuse), [0, 1, 1, 1, 2.5])
    assert close(row("strict", messages(zoom([10, 0, 10, 150]), RED), reward_model=refuse), [0, 0, 1, 1, 2])


def test_areas_are_those_of_whole_pixels():
    # 6.5 x 10 pixels of the original are cut as 6 x 10.
    assert row("exact", messages(zoom([0, 0, 13, 20]), RED), sizes=((10, 10), (20, 20)))[1] == 1


def test_the_weights_and_the_share_can_be_set():
    options = {"region_weight": 2.0, "box_weight": 4.0, "max_share": 0.05}
    assert close(row("exact", messages(zoom(SIGN), RED), **options), [1, 1, 1, 1, 8])
    assert close(row("exact", messages(zoom([0, 0, 50, 40]), RED), **options), [1, 0, 1, 1, 4])


ANSWERS = [  # what the last turn says, whether that is "red" to the inference code
    ("<answer>Red.</answer>", True),
    ("<answer> red", True),
    ("<answer>red<answer>blue</answer>", True),
    ("<answer>blue</answer><answer>red</answer>", False),
    ("<answer></answer>red", False),
    ("red", True),
    ("r-3-d", False),
    ("<answer>r e d</answer>", True),
    ("<answer>dark red</answer>", False),
    ("</answer><answer>red</answer>", True),
]


@pytest.mark.parametrize(("text", "right"), ANSWERS)
def test_answers_and_the_second_model_are_read_as_the_inference_code_reads(text, right):
    assert row("exact", [zoom(SIGN), text])[2] == right
    assert row("exact", [zoom(SIGN), RED], reward_model=lambda *_: [text])[0] == right


ODD = (401, 307)
"""A size from which cutting leaves fractions of pixels."""


def slowly(turns, gold, reply):
    """The formula for one rollout, with the tool but nothing else of the preset."""

    def says_gold(text):
        said = text.split("<answer>")[1].split("</answer>")[0].strip() if "<answer>" in text else ""
        return float("".join(re.findall("[a-zA-Z]", said or text)).lower() == gold.lower())

    turns = turns or [""]
    layout = all(
        any(re.search(f"(?s)<{t}>.*</{t}>", turn) for turn in turns) for t in ("think", "zoom", "answer")
    )
    if tool.parse_zoom(turns[0]) is None:
        region, box = says_gold(reply), 0.0
    else:
        cut = tool.crop(turns[0], ODD, SHOWN, min_pixels=4 * 784, max_pixels=1280 * 784)
        x0, y0, x1, y1 = cut.box if cut else [math.nan] * 4
        area = (x1 - x0) * (y1 - y0)
        region = math.nan if cut is None else says_gold(reply) * (area > 0)
        box = math.nan if cut is None else float(area / (ODD[0] * ODD[1]) <= 0.6)
    right = says_gold(turns[-1])
    return [region, box, right, float(layout), region + 0.5 * box + right + layout]


side = st.integers(-1, 210).map(str) | st.sampled_from(
    ["007", "9" * 16, "9" * 400, "9" * 5000, "٣", "1.5", ""]
)
boxes = st.lists(side, min_size=4, max_size=4).map(lambda n: f"[{', '.join(n)}]")
turn = st.lists(
    st.sampled_from(["<think>", "</think>", "<zoom>", "</zoom>", "<answer>", "</answer>", "red", " ", "é"])
    | boxes
    | boxes.map(zoom),
    max_size=6,
).map("".join)


@given(rollouts=st.lists(st.lists(turn, max_size=3), min_size=1, max_size=5), reply=turn)
@example(rollouts=[[zoom(f"[{'9' * 400}, 0, 0, 9]"), RED]], reply="red")
@example(rollouts=[[zoom(f"[0, 0, {'9' * 308}, 9]"), RED]], reply="red")
@example(rollouts=[[zoom("[0, 0, 1, 9000]"), RED], [f"<zoom>{SIGN}, {WALL}</zoom>"], []], reply="<answer>red")
def test_a_batch_is_the_formula_rollout_by_rollout(rollouts, reply):
    repeats = lambda *columns: [reply] * len(columns[0])  # noqa: E731
    found = np.transpose(parts("exact", *rollouts, reward_model=repeats, sizes=(ODD, SHOWN)))
    expected = [slowly(turns, "red", reply) for turns in rollouts]
    np.testing.assert_array_equal(found, expected)


def test_every_row_has_its_own_size():
    sizes = [(90, 90), SIZE, (201, 151)], [(90, 90), SHOWN, (200, 150)]
    seen = []

    def notes(images, boxes, questions):
        seen.extend(zip(images, boxes, questions, strict=True))
        return ["red"] * len(boxes)

    looked = messages(zoom(SIGN), RED)
    for mode, first in (("exact", [(0, (0, 0, 90, 90), "Which colour?")]), ("strict", [])):
        totals = parts(mode, messages(RED), looked, looked, sizes=sizes, reward_model=notes).total
        assert totals[1:].tolist() == [3.5, 3.5]
        cut = (20, 20, 100, 80), (10, 10, 50, 40)
        assert seen == [*first, *((row, box, "Which colour?") for row, box in enumerate(cut, start=1))]
        assert {type(number) for _, box, _ in seen for number in box} == {int}
        seen.clear()


def test_a_crop_too_thin_to_be_shown_is_no_crop():
    size = (200_000, 400)
    rollout = messages(zoom([0, 0, 200_000, 20]), RED)
    assert close(row("exact", rollout, sizes=(size, size)), [math.nan, math.nan, 1, 1, math.nan])
    assert close(row("strict", rollout, sizes=(size, size)), [0, 0, 1, 1, 2])


def test_a_judge_compares_what_rules_cannot():
    asked = []

    def judge(questions, answers, golds):
        asked.extend(answers)
        return ["1" if "scarlet" in answer else "0" for answer in answers]

    said = messages(zoom(SIGN), RED.replace("red", "scarlet"))
    options = {"judge": judge, "reward_model": lambda *_: ["it is scarlet"]}
    for mode in ("exact", "strict"):
        assert close(row(mode, said, golds="dark red", **options), [1, 1, 1, 1, 3.5])
        assert asked == ["it is scarlet", "scarlet"]
        asked.clear()
    assert close(
        row("strict", said, golds="dark red", reward_model=options["reward_model"]), [0, 1, 0, 1, 1.5]
    )


def test_a_failure_is_no_number_and_the_judge_is_not_asked_about_it():
    said = messages(zoom(SIGN), RED)
    for mode in ("exact", "strict"):
        found = parts(mode, said, said, reward_model=lambda *_: [None, "red"])
        assert close(found.region.tolist(), [math.nan, 1.0])
        assert close(found.total.tolist(), [math.nan, 3.5])
    failed = parts("exact", said, judge=lambda *columns: [None] * len(columns[0]))
    assert math.isnan(failed.accuracy[0])
    assert math.isnan(failed.total[0])


# --- loopholes ---------------------------------------------------------------------------------------


def total(mode, *rollouts):
    """Of messages in which a tool replied; those are what strict believes."""
    return parts(mode, *rollouts).total


def test_tricks_fool_exact_and_not_strict():
    honest = messages(zoom(WALL), RED)  # looked at the wrong place
    fools_exact_but_not_strict(
        SYSTEM,
        {
            "no box": lambda mode: total(mode, messages(zoom("everywhere"), RED), honest),
            "whole image": lambda mode: total(mode, messages(zoom(WHOLE), RED), honest),
            "typed zoom": lambda mode: total(mode, [zoom(SIGN), RED], honest),
            "several zooms": lambda mode: total(
                mode, messages(zoom(SIGN), zoom(WALL), RED), messages(zoom(WALL), RED)
            ),
            "zoom in the thinking": lambda mode: total(
                mode, messages(f"<think><zoom>{SIGN}</zoom></think>", RED), messages("<think></think>", RED)
            ),
            "crop of nothing": lambda mode: total(
                mode, messages(zoom([200, 0, 250, 150]), RED), messages(zoom([0, 50, 200, 150]), RED)
            ),
            "answer without tags": lambda mode: total(
                mode, messages(zoom(WALL), "red"), messages(zoom(WALL), "blue")
            ),
            "answer in the thinking": lambda mode: total(
                mode,
                messages(zoom(WALL), "<think><answer>red</answer></think><answer>blue</answer>"),
                messages(zoom(WALL), "<think></think><answer>blue</answer>"),
            ),
            "several answers": lambda mode: total(
                mode,
                messages(zoom(WALL), f"{RED}<answer>blue</answer>"),
                messages(zoom(WALL), f"{RED.replace('red', 'green')}<answer>blue</answer>"),
            ),
            "letters alone": lambda mode: total(
                mode,
                messages(zoom(WALL), RED.replace("red", "r-3e-d")),
                messages(zoom(WALL), RED.replace("red", "r3")),
            ),
            "tags anywhere": lambda mode: total(
                mode,
                messages(f"<zoom>{WALL}</zoom>", "<answer>red</answer><think></think>"),
                messages(f"<zoom>{WALL}</zoom>", "<answer>red</answer>"),
            ),
        },
    )


def test_strict_believes_an_image_of_the_tool_alone():
    assert close(row("strict", messages(zoom(SIGN), RED, image=False)), [0, 0, 1, 1, 2])
    user = [*messages(zoom(SIGN), RED)]
    user[1] = {"role": "user", "content": [{"type": "image"}]}
    assert close(row("strict", user), [0, 0, 1, 1, 2])
    assert close(row("strict", zoom(SIGN) + RED), [0, 0, 1, 0, 1])


def test_strict_takes_no_crop_where_one_of_two_zooms_was_refused():
    said = messages(zoom(SIGN), zoom(WALL), RED)
    for refused in (1, 3):
        rollout = list(said)
        rollout[refused] = {"role": "tool", "content": "refused"}
        assert close(row("strict", rollout), [0, 0, 1, 0, 1])


def test_strict_shows_the_second_model_only_crops_that_count():
    seen = []

    def notes(images, boxes, questions):
        seen.extend(images)
        return ["red"] * len(boxes)

    said = [messages(zoom(box), RED) for box in (WHOLE, SIGN, "x", WALL)]
    parts("strict", *said, reward_model=notes)
    assert seen == [1, 3]


# --- the rules every preset keeps --------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["exact", "strict"])
@given(
    rows=st.lists(
        texts | st.lists(turn | texts, max_size=3) | st.lists(turn, max_size=3).map(lambda t: messages(*t)),
        max_size=6,
    )
)
def test_any_text_gets_a_score_of_its_own(mode, rows):
    keeps_the_contract(lambda said: parts(mode, *said), rows)


BAD = [
    ({"reward_model": None}, ValueError, "reward_model must be given"),
    ({"reward_model": lambda *_: []}, ValueError, "reward_model must give one answer per crop, got 0 for 1"),
    (
        {"reward_model": lambda *_: [True]},
        TypeError,
        "reward_model must answer with a text or None, got True",
    ),
    ({"max_share": 0}, ValueError, r"max_share must be above 0 and at most 1, got 0"),
    ({"max_share": math.nan}, ValueError, r"max_share must be above 0 and at most 1, got nan"),
    (
        {"golds": "dark red"},
        ValueError,
        r"answers\[0\] must be letters only if there is no judge, got 'dark red'",
    ),
    ({"golds": [4]}, ValueError, r"answers\[0\] must be letters only if there is no judge, got 4"),
    ({"golds": ["é"]}, ValueError, r"answers\[0\] must be letters only if there is no judge, got 'é'"),
    ({"golds": ""}, ValueError, r"answers\[0\] must be letters only"),
    (
        {"sizes": ((0, 9), SHOWN)},
        ValueError,
        r"image_sizes must be a positive finite \(width, height\), got \[0.0, 9",
    ),
    (
        {"sizes": (SIZE, [SHOWN] * 2)},
        ValueError,
        "shown_sizes must have one entry per completion, got 2 for 1",
    ),
    ({"mode": "lax"}, ValueError, 'mode must be "exact" or "strict"'),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_input_of_the_caller_is_named(options, error, message):
    with pytest.raises(error, match=message):
        parts(options.pop("mode", "exact"), messages(zoom(SIGN), RED), **options)


def test_columns_have_one_entry_per_completion():
    with pytest.raises(ValueError, match="images must have one entry per completion, got 1 for 2"):
        presets.ergo(
            [RED, RED], ["red"] * 2, questions=["?"] * 2, images=["a"], image_sizes=SIZE, shown_sizes=SHOWN,
            reward_model=sees,
        )  # fmt: skip
