"""Compute the figures of an evaluation from the columns of its rollouts.

`docs/reference/evaluation-figures.md` defines every figure. Each is a mean over questions; first, samples are
averaged within their row and rows within their question.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfpc_trl.errors import DataError
from lfpc_trl.evaluate.statistics import (
    LEAST,
    LEVEL,
    RESAMPLES,
    Estimate,
    difference_of,
    group_means,
    mean_of,
)

Columns = Mapping[str, Sequence[Any]]
"""Column name to one value per rollout, as in the Parquet files of an evaluation."""

NAMES = ("benchmark", "condition", "row_id", "question_id", "category")
MEASURES = (
    *("accuracy", "well_formed", "turns", "crops", "failed_calls"),
    *("iou", "overlap", "bbox_ratio", "crop_tokens", "shown_tokens", "seconds"),
)
COLUMNS = (*NAMES, "budget", "sample", *MEASURES)
"""The columns that `summarise` needs."""

CONDITIONS = ("predicted", "noise", "target", "elsewhere", "no_picture", "no_tool")
"""The conditions in the order of tables: those of the paper's table 1 first."""
CHANGES = (
    *(("predicted", "noise"), ("target", "predicted")),
    *(("predicted", "elsewhere"), ("predicted", "no_picture"), ("predicted", "no_tool")),
)
"""Pairs of conditions; the second accuracy is subtracted from the first."""
POOR_OVERLAP = 0.5
"""Overlap below which a crop covers the ground truth poorly. Our choice: the paper's section 9 gives none."""


@dataclass(frozen=True)
class Group:
    """One benchmark at one budget, or one category of it.

    Attributes:
        benchmark: name of the benchmark.
        budget: maximum visual tokens of the full image.
        category: the subset, None for all questions.
        questions: question ids, in the order of the values.
        rows: number of rows of these questions.
        undecided: number of rollouts by condition whose answer could not be judged; they are left out.
        values: one value per question by figure, NaN where it has none.
    """

    benchmark: str
    budget: int
    category: str | None
    questions: tuple[str, ...]
    rows: int
    undecided: dict[str, int]
    values: dict[str, NDArray[np.float64]]


def accuracy_of(condition: str) -> str:
    """Return the name of the accuracy under a condition."""
    return "accuracy" if condition == "predicted" else f"accuracy_{condition}"


def well_formed_of(condition: str) -> str:
    """Return the name of the share of well-formed rollouts under a condition."""
    return "well_formed" if condition == "predicted" else f"well_formed_{condition}"


# --- values per question -----------------------------------------------------------------------------


def groups_of(columns: Columns, *, poor_overlap: float = POOR_OVERLAP) -> list[Group]:
    """Compute the figures of every question.

    Args:
        columns: the columns in `COLUMNS`.
        poor_overlap: overlap below which a crop covers the ground truth poorly.

    Returns:
        Groups in the order of the benchmarks; budgets ascend; all questions come before their categories.

    Raises:
        DataError: a column is missing, a condition is unknown, or a rollout occurs twice.
    """
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise DataError(f"column {missing[0]} of the rollouts is missing")
    foreign = set(columns["condition"]) - set(CONDITIONS)
    if foreign:
        raise DataError(f"condition must be one of {', '.join(CONDITIONS)}, got {min(foreign)}")
    benchmarks = np.array(columns["benchmark"], dtype=object)
    budgets = np.array(columns["budget"], dtype=np.int64)
    groups = []
    for benchmark in dict.fromkeys(columns["benchmark"]):
        for budget in np.unique(budgets[benchmarks == benchmark]).tolist():
            indices = np.flatnonzero((benchmarks == benchmark) & (budgets == budget))
            table = _Table(columns, indices, f"{benchmark} at {budget} visual tokens")
            whole = _whole_group(table, str(benchmark), budget, poor_overlap)
            categories = [name for name in dict.fromkeys(table.categories) if name is not None]
            groups += [whole, *(_part(whole, table, name) for name in categories)]
    return groups


class _Table:
    """The rollouts of a benchmark at a budget as (rows, samples) arrays, one per condition and column.

    Attributes:
        questions: ids of the questions.
        question_of: index of each row's question.
        categories: the category of each question.
    """

    def __init__(self, columns: Columns, indices: NDArray[np.int64], name: str) -> None:
        chosen = {column: [columns[column][index] for index in indices.tolist()] for column in COLUMNS}
        rows = {row: number for number, row in enumerate(dict.fromkeys(chosen["row_id"]))}
        samples = {each: number for number, each in enumerate(sorted(set(chosen["sample"])))}
        questions = {each: number for number, each in enumerate(dict.fromkeys(chosen["question_id"]))}
        question_ids = dict(zip(chosen["row_id"], chosen["question_id"], strict=True))
        category = dict(zip(chosen["question_id"], chosen["category"], strict=True))
        self.questions = tuple(map(str, questions))
        self.question_of = np.array([questions[question_ids[row]] for row in rows], dtype=np.int64)
        self.categories = [category[question] for question in questions]
        self._shape = (len(rows), len(samples))
        cell = np.array(
            [
                rows[row] * len(samples) + samples[sample]
                for row, sample in zip(chosen["row_id"], chosen["sample"], strict=True)
            ],
            dtype=np.int64,
        )
        conditions = np.array(chosen["condition"], dtype=object)
        self._cells: dict[str, NDArray[np.int64]] = {}
        self._measures: dict[tuple[str, str], NDArray[np.float64]] = {}
        measures = {column: np.array(chosen[column], dtype=np.float64) for column in MEASURES}
        for condition in CONDITIONS:
            matching = np.flatnonzero(conditions == condition)
            cells, first = np.unique(cell[matching], return_index=True)
            if len(cells) < len(matching):
                duplicate = matching[np.setdiff1d(np.arange(len(matching)), first)[0]]
                row, sample = chosen["row_id"][duplicate], chosen["sample"][duplicate]
                raise DataError(f"{name}: row {row}, sample {sample} occurs twice under {condition}")
            self._cells[condition] = cells
            for column in MEASURES:
                values = np.full(self._shape, math.nan)
                values.flat[cells] = measures[column][matching[first]]
                self._measures[condition, column] = values

    def cells(self, condition: str, column: str) -> NDArray[np.float64]:
        """Return the (rows, samples) values of a column, NaN where there is no rollout or no value."""
        return self._measures[condition, column]

    def undecided(self, condition: str) -> NDArray[np.int64]:
        """Count the rollouts without an accuracy, by question."""
        rows = self._cells[condition] // self._shape[1]
        lacking = np.isnan(self.cells(condition, "accuracy").flat[self._cells[condition]])
        return np.bincount(self.question_of[rows[lacking]], minlength=len(self.questions))

    def by_question(self, cells: NDArray[np.float64]) -> NDArray[np.float64]:
        """Average samples within their row, then rows within their question; one value per question."""
        count, samples = self._shape
        rows = group_means(cells.ravel(), np.repeat(np.arange(count), samples), count)
        return group_means(rows, self.question_of, len(self.questions))

    def all_orders(self, condition: str) -> NDArray[np.float64]:
        """Return the share of samples that are right in all rows, by question; NaN with an undecided row."""
        accuracy = self.cells(condition, "accuracy")
        worst = np.full((len(self.questions), self._shape[1]), math.inf)
        np.minimum.at(worst, self.question_of, accuracy)
        return group_means(
            np.where(np.isnan(worst), math.nan, worst >= 1).ravel(),
            np.repeat(np.arange(len(self.questions)), self._shape[1]),
            len(self.questions),
        )


def _whole_group(table: _Table, benchmark: str, budget: int, poor_overlap: float) -> Group:
    accuracy = {name: table.cells(name, "accuracy") for name in CONDITIONS}
    own = {name: table.cells("predicted", name) for name in MEASURES}
    has_rollout = ~np.isnan(own["crops"])
    cells: dict[str, NDArray[np.float64]] = {}
    for name in CONDITIONS:
        cells[accuracy_of(name)] = accuracy[name]
    for name in CONDITIONS:
        cells[well_formed_of(name)] = table.cells(name, "well_formed")
    for one, other in CHANGES:
        cells[f"{one} - {other}"] = accuracy[one] - accuracy[other]
    cells |= _section_9(accuracy, own["overlap"], poor_overlap)
    cells["crops"] = own["crops"]
    cells["cropped"] = np.where(has_rollout, own["crops"] > 0, math.nan)
    cells |= {name: own[name] for name in ("failed_calls", "turns", "iou", "overlap", "bbox_ratio")}
    cells["crop_tokens"] = own["crop_tokens"]
    of_crops = np.where(own["crops"] > 0, own["crops"] * own["crop_tokens"], 0.0)
    cells["visual_tokens"] = own["shown_tokens"] + of_crops
    cells["seconds"] = own["seconds"]
    values = {name: table.by_question(each) for name, each in cells.items()}
    values["accuracy_all_orders"] = (
        table.all_orders("predicted")
        if len(table.question_of) > len(table.questions)
        else np.full(len(table.questions), math.nan)
    )
    return Group(
        benchmark,
        budget,
        None,
        table.questions,
        len(table.question_of),
        {name: int(table.undecided(name).sum()) for name in CONDITIONS},
        values,
    )


def _section_9(
    accuracy: Mapping[str, NDArray[np.float64]], overlap: NDArray[np.float64], poor_overlap: float
) -> dict[str, NDArray[np.float64]]:
    """Compute the two harder tests of the paper's section 9, each over the rollouts it applies to."""

    def over(chosen: NDArray[np.bool_], first: str, *others: str) -> dict[str, NDArray[np.float64]]:
        kept = {name: np.where(chosen, accuracy[name], math.nan) for name in (first, *others)}
        return kept | {f"predicted - {name}": kept["predicted"] - kept[name] for name in others}

    # GT test: the ground truth replaces the crop, where the model's own crop misses it; needs a crop.
    gt = over(overlap < poor_overlap, "predicted", "target")
    gt["target - predicted"] = -gt.pop("predicted - target")
    # Noise test: a useless crop replaces it, where the model is wrong without the tool and right with it.
    helped = (accuracy["no_tool"] < 0.5) & (accuracy["predicted"] >= 0.5)
    noise = over(helped, "predicted", "noise", "elsewhere")
    return {f"gt_test.{name}": each for name, each in gt.items()} | {
        f"noise_test.{name}": each for name, each in noise.items()
    }


def _part(whole: Group, table: _Table, category: str) -> Group:
    """Restrict a group to the questions of one category."""
    kept = np.array([each == category for each in table.categories])
    return dataclasses.replace(
        whole,
        category=category,
        questions=tuple(np.array(whole.questions, dtype=object)[kept]),
        rows=int(kept[table.question_of].sum()),
        undecided={name: int(table.undecided(name)[kept].sum()) for name in CONDITIONS},
        values={name: each[kept] for name, each in whole.values.items()},
    )


# --- figures -----------------------------------------------------------------------------------------


def summarise(columns: Columns, *, poor_overlap: float = POOR_OVERLAP, seed: int = 0) -> dict[str, Any]:
    """Compute all figures of an evaluation.

    Args:
        columns: the columns in `COLUMNS`, from its Parquet files.
        poor_overlap: overlap below which a crop covers the ground truth poorly.
        seed: seed of the resampling.

    Returns:
        Plain JSON: `settings` of the figures; `groups`, one per benchmark, budget and category, each with its
        `figures` by name; `budgets`, the accuracy at each budget minus that at the smallest. A figure is
        `{"value", "low", "high", "n"}`; if `n` is 0, there was nothing to measure and the rest is null.

    Raises:
        DataError: an error of `groups_of`.
    """
    groups = groups_of(columns, poor_overlap=poor_overlap)
    return {
        "settings": {
            "level": LEVEL,
            "resamples": RESAMPLES,
            "least": LEAST,
            "seed": seed,
            "poor_overlap": poor_overlap,
        },
        "groups": [
            described(group)
            | {
                "undecided": {name: count for name, count in group.undecided.items() if count},
                "figures": {
                    name: dataclasses.asdict(mean_of(values, seed=seed))
                    for name, values in group.values.items()
                },
            }
            for group in groups
        ],
        "budgets": _budgets(groups, seed),
    }


def described(group: Group) -> dict[str, Any]:
    """Return the JSON fields that describe a group."""
    return {
        "benchmark": group.benchmark,
        "budget": group.budget,
        "category": group.category,
        "questions": len(group.questions),
        "rows": group.rows,
    }


def differences(group: Group, against: Group, names: Sequence[str], *, seed: int = 0) -> dict[str, Estimate]:
    """Compute the figures of one group minus those of another, over the questions of both.

    Args:
        group: the group to compare.
        against: the group to subtract; the order of its questions does not matter.
        names: the figures to compare.
        seed: seed of the resampling.
    """
    index_of = {question: index for index, question in enumerate(against.questions)}
    shared = [index for index, question in enumerate(group.questions) if question in index_of]
    shared_against = [index_of[group.questions[index]] for index in shared]
    return {
        name: difference_of(group.values[name][shared], against.values[name][shared_against], seed=seed)
        for name in names
    }


def _budgets(groups: Sequence[Group], seed: int) -> list[dict[str, Any]]:
    smallest: dict[tuple[str, str | None], Group] = {}
    changes = []
    for group in groups:  # budgets ascend
        against = smallest.setdefault((group.benchmark, group.category), group)
        if against is not group:
            change = differences(group, against, ["accuracy"], seed=seed)["accuracy"]
            changes.append(
                described(group) | {"against": against.budget, "accuracy": dataclasses.asdict(change)}
            )
    return changes
