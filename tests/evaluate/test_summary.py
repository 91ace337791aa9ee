import json
import math
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from lfpc_trl.errors import DataError
from lfpc_trl.evaluate.summary import COLUMNS, CONDITIONS, differences, groups_of, summarise
from tests.evaluate.fake import columns_of, rollout, rollouts


def figures_of(*made, **options):
    """The figures of all questions of the only benchmark."""
    return summarise(columns_of(made), **options)["groups"][0]["figures"]


def value(figures, name):
    return figures[name]["value"], figures[name]["n"]


def cropped(row, accuracy=1.0, condition="predicted", **columns):
    measures = {"crops": 1, "iou": 0.4, "overlap": 0.9, "bbox_ratio": 0.1, "crop_tokens": 50.0}
    return rollout(row_id=row, accuracy=accuracy, condition=condition, **measures | columns)


# --- a question is the unit --------------------------------------------------------------------------


def test_samples_are_averaged_in_their_row_and_rows_in_their_question():
    figures = figures_of(
        rollout(row_id="a1", question_id="a", sample=0, accuracy=1.0),
        rollout(row_id="a1", question_id="a", sample=1, accuracy=0.0),
        rollout(row_id="a2", question_id="a", accuracy=0.0),  # its other sample is missing
        rollout(row_id="b1", question_id="b", accuracy=1.0),
    )
    assert value(figures, "accuracy") == ((0.25 + 1) / 2, 2)


def test_an_undecided_answer_is_left_out_and_counted():
    group = summarise(
        columns_of(
            [
                rollout(row_id="a", accuracy=None),
                rollout(row_id="b", accuracy=0.0),
                rollout(row_id="c1", question_id="c", accuracy=None),
                rollout(row_id="c2", question_id="c", accuracy=1.0),
                rollout(row_id="b", accuracy=None, condition="noise"),
            ]
        )
    )["groups"][0]
    assert value(group["figures"], "accuracy") == (0.5, 2)
    assert value(group["figures"], "predicted - noise") == (None, 0)
    assert group["undecided"] == {"predicted": 2, "noise": 1}
    assert (group["questions"], group["rows"]) == (3, 4)


ALL_ORDERS = [  # id, accuracy of the rows of each question, figure
    ("all right", [[1, 1], [1, 1]], (1.0, 2)),
    ("one order wrong", [[1, 0], [1, 1]], (0.5, 2)),
    ("an undecided order", [[1, None], [1, 1]], (1.0, 1)),
    ("one row per question", [[1], [0]], (None, 0)),
]


@pytest.mark.parametrize(("_", "questions", "expected"), ALL_ORDERS, ids=[case[0] for case in ALL_ORDERS])
def test_all_orders_of_a_question(_, questions, expected):
    made = [
        rollout(row_id=f"{question}-{row}", question_id=str(question), accuracy=accuracy)
        for question, rows in enumerate(questions)
        for row, accuracy in enumerate(rows)
    ]
    assert value(figures_of(*made), "accuracy_all_orders") == expected


# --- conditions and section 9 ------------------------------------------------------------------------


def test_changes_are_paired_row_by_row():
    figures = figures_of(
        cropped("a", 1.0),
        cropped("a", 0.0, "noise"),
        cropped("b", 1.0),
        cropped("b", 1.0, "noise"),
        cropped("c", 0.0),  # no rollout under noise: not in the change
        cropped("a", 1.0, "target"),
        cropped("c", 1.0, "target"),
    )
    assert value(figures, "accuracy") == (pytest.approx(2 / 3), 3)
    assert value(figures, "accuracy_noise") == (0.5, 2)
    assert value(figures, "predicted - noise") == (0.5, 2)
    assert value(figures, "target - predicted") == (0.5, 2)
    assert value(figures, "predicted - no_tool") == (None, 0)


def test_the_gt_test_is_over_crops_that_miss_the_truth():
    made = [
        *(cropped("poor", 0.0, overlap=0.49), cropped("poor", 1.0, "target")),
        *(cropped("fair", 0.0, overlap=0.5), cropped("fair", 1.0, "target")),
        *(rollout(row_id="no crop", accuracy=0.0), cropped("no crop", 1.0, "target")),
    ]
    figures = figures_of(*made)
    assert value(figures, "gt_test.predicted") == (0.0, 1)
    assert value(figures, "gt_test.target") == (1.0, 1)
    assert value(figures, "gt_test.target - predicted") == (1.0, 1)
    assert value(figures_of(*made, poor_overlap=0.6), "gt_test.target") == (1.0, 2)
    assert value(figures_of(*made, poor_overlap=0.3), "gt_test.target") == (None, 0)


def test_the_noise_test_is_over_rows_that_need_the_tool():
    outcomes = {  # without the tool, with it, with noise, elsewhere
        "needs it": (0.0, 1.0, 0.0, 1.0),
        "needs the pattern": (0.0, 1.0, 1.0, 1.0),
        "knows it": (1.0, 1.0, 0.0, 0.0),
        "fails": (0.0, 0.0, 1.0, 1.0),
        "undecided": (None, 1.0, 0.0, 0.0),
    }
    names = ("no_tool", "predicted", "noise", "elsewhere")
    figures = figures_of(
        *(
            cropped(row, accuracy, condition)
            for row, each in outcomes.items()
            for condition, accuracy in zip(names, each, strict=True)
        )
    )
    assert value(figures, "noise_test.predicted") == (1.0, 2)
    assert value(figures, "noise_test.noise") == (0.5, 2)
    assert value(figures, "noise_test.predicted - noise") == (0.5, 2)
    assert value(figures, "noise_test.predicted - elsewhere") == (0.0, 2)


# --- crops -------------------------------------------------------------------------------------------


def test_crop_measures_are_over_rollouts_with_a_crop():
    figures = figures_of(
        cropped("a", crops=2, iou=0.2, crop_tokens=30.0, shown_tokens=100),
        cropped("b", iou=0.6, crop_tokens=90.0, shown_tokens=100),
        rollout(row_id="c", shown_tokens=40),
        cropped("d", iou=None, overlap=None, crop_tokens=30.0, shown_tokens=100),  # a row without targets
    )
    assert value(figures, "crops") == (1.0, 4)
    assert value(figures, "cropped") == (0.75, 4)
    assert value(figures, "iou") == (pytest.approx(0.4), 2)
    assert value(figures, "overlap") == (0.9, 2)
    assert value(figures, "bbox_ratio") == (pytest.approx(0.1), 3)
    assert value(figures, "crop_tokens") == (50.0, 3)
    assert value(figures, "visual_tokens") == ((160 + 190 + 40 + 130) / 4, 4)


def test_measures_of_other_conditions_do_not_count():
    figures = figures_of(cropped("a", iou=0.2), cropped("a", 0.0, "target", iou=1.0, seconds=99.0))
    assert value(figures, "iou") == (0.2, 1)
    assert value(figures, "seconds") == (2.0, 1)


# --- groups ------------------------------------------------------------------------------------------


def test_a_group_for_all_questions_then_one_per_category():
    made = [
        rollout(row_id="a", category="FSP", budget=16384),
        rollout(row_id="b", category="FCP", budget=16384, accuracy=0.0),
        rollout(row_id="c", budget=16384, accuracy=0.0),  # of no category
        rollout(row_id="a", category="FSP", accuracy=0.0),
        rollout(row_id="x", benchmark="own"),
    ]
    summary = summarise(columns_of(made))
    found = [
        (each["benchmark"], each["budget"], each["category"], *value(each["figures"], "accuracy"))
        for each in summary["groups"]
    ]
    assert found == [
        ("vstar", 1024, None, 0.0, 1),
        ("vstar", 1024, "FSP", 0.0, 1),
        ("vstar", 16384, None, pytest.approx(1 / 3), 3),
        ("vstar", 16384, "FSP", 1.0, 1),
        ("vstar", 16384, "FCP", 0.0, 1),
        ("own", 1024, None, 1.0, 1),
    ]
    assert [(each["category"], each["against"], *value(each, "accuracy")) for each in summary["budgets"]] == [
        (None, 1024, 1.0, 1),  # over the one question that was asked at both
        ("FSP", 1024, 1.0, 1),
    ]


def test_differences_pair_questions_whatever_their_order():
    one, other = (
        groups_of(columns_of([rollout(row_id=row, accuracy=accuracy) for row, accuracy in rows]))[0]
        for rows in (
            [("a", 1.0), ("b", 0.0), ("c", 1.0)],
            [("d", 1.0), ("c", 0.0), ("a", 1.0)],
        )
    )
    found = differences(one, other, ["accuracy", "iou"])
    assert (found["accuracy"].value, found["accuracy"].n) == (0.5, 2)
    assert found["iou"].n == 0


def test_a_difference_that_is_the_same_for_all_questions_has_no_spread():
    def group_of(names, less):
        made = [cropped(str(name), iou=0.5 + name / 64 - less) for name in names]
        return groups_of(columns_of(made))[0]

    found = differences(group_of(range(20), 0.0), group_of(reversed(range(20)), 0.25), ["iou"])["iou"]
    assert (found.value, found.low, found.n) == (0.25, None, 20)


def by_a_loop(made, name):
    """Figures of all questions, one at a time: {(benchmark, budget, category): (mean, questions)}."""
    cells = defaultdict(dict)
    for each in made:
        key = each["benchmark"], each["budget"], each["question_id"], each["row_id"], each["sample"]
        cells[key][each["condition"]] = each
    groups = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for (benchmark, budget, question, row, _), seen in cells.items():
        own = seen["predicted"]
        if name == "predicted - noise":
            found = own["accuracy"] - seen["noise"]["accuracy"]
        elif name == "visual_tokens":
            found = own["shown_tokens"] + (own["crops"] * own["crop_tokens"] if own["crops"] else 0)
        elif name == "noise_test.noise":
            chosen = seen["no_tool"]["accuracy"] == 0 and own["accuracy"] == 1
            found = seen["noise"]["accuracy"] if chosen else None
        else:
            found = own[name]
        if found is not None:
            for category in (None, own["category"]):
                groups[benchmark, budget, category][question][row].append(found)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return {
        group: (mean([mean([mean(s) for s in rows.values()]) for rows in questions.values()]), len(questions))
        for group, questions in groups.items()
    }


@pytest.mark.parametrize(
    "name", ["accuracy", "predicted - noise", "visual_tokens", "noise_test.noise", "iou", "crop_tokens"]
)
def test_figures_are_those_of_a_loop(name):
    made = [
        each | {"sample": sample}
        for sample in (0, 1)
        for each in rollouts(questions=6, orders=3, seed=sample)
    ]
    shuffled = [made[place] for place in np.random.default_rng(0).permutation(len(made))]
    expected = by_a_loop(made, name)
    found = {
        (each.benchmark, each.budget, each.category): each.values[name]
        for each in groups_of(columns_of(shuffled))
    }
    assert set(expected) <= set(found)
    for group, (mean, count) in expected.items():
        known = found[group][~np.isnan(found[group])]
        assert (known.mean(), len(known)) == (pytest.approx(mean), count)


def test_the_summary_is_plain_json_and_the_same_every_time():
    columns = columns_of(rollouts(questions=12))
    text = json.dumps(summarise(columns), allow_nan=False)
    assert json.dumps(summarise(columns), allow_nan=False) == text
    assert json.loads(text)["settings"] == {
        "level": 0.95,
        "resamples": 10_000,
        "least": 10,
        "seed": 0,
        "poor_overlap": 0.5,
    }


def test_every_group_has_every_figure():
    groups = summarise(columns_of(rollouts(questions=4, conditions=("predicted",))))["groups"]
    assert len({tuple(group["figures"]) for group in groups}) == 1
    for figure in groups[0]["figures"].values():
        assert (figure["value"] is None) == (figure["n"] == 0)
        assert not any(isinstance(each, float) and math.isnan(each) for each in figure.values())


def test_a_condition_that_does_not_exist_is_refused():
    with pytest.raises(DataError, match=f"must be one of {', '.join(CONDITIONS)}, got mirror"):
        groups_of(columns_of([rollout(condition="mirror")]))


def test_a_rollout_that_is_there_twice_is_refused():
    made = [rollout(row_id="a"), rollout(row_id="b", sample=1), rollout(row_id="b", sample=1)]
    with pytest.raises(DataError, match="vstar at 1024 visual tokens: row b, sample 1 occurs twice"):
        groups_of(columns_of(made))


def test_the_columns_that_are_read_are_those_that_are_named():
    columns = {name: each for name, each in columns_of(rollouts(questions=1)).items() if name in COLUMNS}
    assert groups_of(columns)
    for name in COLUMNS:
        with pytest.raises(DataError, match=f"column {name} of the rollouts is missing"):
            groups_of({each: values for each, values in columns.items() if each != name})


def test_the_page_on_figures_defines_every_figure_and_no_others():
    page = Path(__file__).parents[2] / "docs" / "reference" / "evaluation-figures.md"
    named = re.findall(r"^\| `([^`]+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    (group,) = groups_of(columns_of([rollout()]))
    assert sorted(named) == sorted(group.values)
