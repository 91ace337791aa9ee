"""Compare several evaluations over the same questions."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc_trl.errors import UserError, not_one_of
from lfpc_trl.evaluate.outputs import PAGE, TABLES, read_about, read_columns
from lfpc_trl.evaluate.page import comparison_story, render
from lfpc_trl.evaluate.summary import (
    COLUMNS,
    POOR_OVERLAP,
    Columns,
    described,
    differences,
    groups_of,
    summarise,
)
from lfpc_trl.evaluate.tables import Table, change_tables, tables, to_markdown
from lfpc_trl.files import write_atomic

COMPARISON = "comparison.json"
"""File with the figures of all evaluations and the differences between them."""

_CONTENT = ("question_id", "question", "choices", "accepted", "category")
_OWN_SETTINGS = ("model", "fingerprint")  # expected to differ: the models do


def write_comparison(
    evaluations: Mapping[str, Path],
    output: Path,
    *,
    baseline: str | None = None,
    poor_overlap: float = POOR_OVERLAP,
) -> list[str]:
    """Write tables, figures and a page that compare several evaluations.

    Only the benchmarks and budgets that all evaluations share are compared. A shared benchmark must have the
    same rows in all of them.

    Args:
        evaluations: name to output directory, in the order of the tables.
        output: a directory; created if missing, the files of an earlier comparison are replaced.
        baseline: the evaluation that is subtracted from the others; the first by default.
        poor_overlap: overlap below which a crop covers the ground truth poorly.

    Returns:
        Notes on what was left out because only some evaluations have it.

    Raises:
        UserError: fewer than two evaluations, an unknown baseline, different questions, or an error of
            `read_columns` or `read_about`.
    """
    if len(evaluations) < 2:
        raise UserError(f"a comparison needs at least two evaluations, got {len(evaluations)}")
    baseline = next(iter(evaluations)) if baseline is None else baseline
    if baseline not in evaluations:
        raise UserError(not_one_of("--baseline", baseline, evaluations))
    settings = {name: _flat(read_about(path).get("settings", {})) for name, path in evaluations.items()}
    all_columns = {
        name: read_columns(path, (*COLUMNS, *(each for each in _CONTENT if each not in COLUMNS)))
        for name, path in evaluations.items()
    }
    shared, notes = _shared(all_columns)
    columns = {name: _only(each, shared) for name, each in all_columns.items()}

    figures = {name: summarise(each, poor_overlap=poor_overlap) for name, each in columns.items()}
    changes = _changes(columns, baseline, poor_overlap)
    differing = _differing(settings)
    all_tables = [
        *change_tables(changes, baseline),
        *tables(figures),
        *([_settings_table(differing, settings)] if differing else []),
    ]
    names = ", ".join(evaluations)
    title = f"Comparison of {names}"
    output.mkdir(parents=True, exist_ok=True)
    page = render(
        title=title,
        lede="All models answered the same questions. Differences are paired by question.",
        story=[*comparison_story(changes, baseline), *([("Left out", notes)] if notes else [])],
        models=figures,
        columns=columns,
        tables=all_tables,
        settings={name: str(path) for name, path in evaluations.items()} | {"baseline": baseline},
    )
    plain = {
        "baseline": baseline,
        "models": figures,
        "changes": changes,
        "settings": settings,
        "notes": notes,
    }
    write_atomic(output / TABLES, to_markdown(all_tables, title=title, intro=notes))
    write_atomic(output / PAGE, page)
    write_atomic(output / COMPARISON, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    return notes


# --- the same questions ------------------------------------------------------------------------------


def _shared(all_columns: Mapping[str, Columns]) -> tuple[set[tuple[str, int]], list[str]]:
    """Return the (benchmark, budget) pairs that all evaluations have, and notes on the others."""
    contents = {name: _contents(columns) for name, columns in all_columns.items()}
    first, *others = contents
    notes: list[str] = []
    benchmarks = [each for each in contents[first] if all(each in contents[name] for name in others)]
    if not benchmarks:
        overview = "; ".join(f"{name} has {', '.join(each)}" for name, each in contents.items())
        raise UserError(f"the evaluations share no benchmark: {overview}")
    for name, each in contents.items():
        only = [benchmark for benchmark in each if benchmark not in benchmarks]
        if only:
            notes.append(f"{', '.join(only)}: not in all evaluations ({name} has it).")
    shared = set()
    for benchmark in benchmarks:
        for name in others:
            _check_same_rows(
                benchmark, first, contents[first][benchmark][0], name, contents[name][benchmark][0]
            )
        budgets = {name: each[benchmark][1] for name, each in contents.items()}
        common = set.intersection(*budgets.values())
        overview = "; ".join(f"{name} at {_listed(each)}" for name, each in budgets.items())
        if not common:
            raise UserError(f"the budgets of {benchmark} do not overlap: {overview}")
        if any(each != common for each in budgets.values()):
            notes.append(f"{benchmark} is compared at {_listed(common)} visual tokens only: {overview}.")
        shared |= {(benchmark, budget) for budget in common}
    return shared, notes


def _listed(budgets: set[int]) -> str:
    return " and ".join(f"{budget:,}" for budget in sorted(budgets))


def _contents(columns: Columns) -> dict[str, tuple[dict[str, dict[str, Any]], set[int]]]:
    """Return the content of each row, and the budgets, by benchmark."""
    contents: dict[str, tuple[dict[str, dict[str, Any]], set[int]]] = {}
    names = ("benchmark", "budget", "row_id", *_CONTENT)
    for benchmark, budget, row, *content in zip(*(columns[name] for name in names), strict=True):
        rows, budgets = contents.setdefault(benchmark, ({}, set()))
        rows[row] = dict(zip(_CONTENT, content, strict=True))  # the same for each of its rollouts
        budgets.add(budget)
    return contents


def _check_same_rows(
    benchmark: str,
    first: str,
    first_rows: dict[str, dict[str, Any]],
    second: str,
    second_rows: dict[str, dict[str, Any]],
) -> None:
    for name, these, those in ((first, first_rows, second_rows), (second, second_rows, first_rows)):
        only = [row for row in these if row not in those]
        if only:
            raise UserError(
                f"{first} and {second} have different questions of {benchmark}: {len(only)} of "
                f"{len(these)} rows are only in {name}, such as {only[0]}"
            )
    for row, content in first_rows.items():
        for column in _CONTENT:
            if content[column] != second_rows[row][column]:
                raise UserError(
                    f"{first} and {second} have different questions of {benchmark}: row {row} differs "
                    f"in its {column}: {_short(content[column])} and {_short(second_rows[row][column])}"
                )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _only(columns: Columns, shared: set[tuple[str, int]]) -> Columns:
    pairs = zip(columns["benchmark"], columns["budget"], strict=True)
    kept = [index for index, pair in enumerate(pairs) if pair in shared]
    return {name: [values[index] for index in kept] for name, values in columns.items()}


# --- what differs ------------------------------------------------------------------------------------


def _changes(
    columns: Mapping[str, Columns], baseline: str, poor_overlap: float
) -> dict[str, list[dict[str, Any]]]:
    """Return the groups of each model, each figure minus the baseline's."""
    groups = {
        name: {
            (group.benchmark, group.budget, group.category): group
            for group in groups_of(each, poor_overlap=poor_overlap)
        }
        for name, each in columns.items()
    }
    changes: dict[str, list[dict[str, Any]]] = {}
    for name, own in groups.items():
        if name == baseline:
            continue
        changes[name] = []
        for key, group in own.items():
            estimates = differences(group, groups[baseline][key], list(group.values))
            figures = {figure: dataclasses.asdict(each) for figure, each in estimates.items()}
            changes[name].append(described(group) | {"figures": figures})
    return changes


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested settings; inner ones are named `outer.inner`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = _flat(value) if isinstance(value, Mapping) else None
        flat |= {name: value} if inner is None else {f"{name}.{each}": inner[each] for each in inner}
    return flat


def _differing(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the settings that differ between evaluations, except those that name the model."""
    names = dict.fromkeys(name for each in settings.values() for name in each)
    return [
        name
        for name in names
        if name not in _OWN_SETTINGS
        and len({json.dumps(each.get(name), sort_keys=True) for each in settings.values()}) > 1
    ]


def _settings_table(names: list[str], settings: Mapping[str, Mapping[str, Any]]) -> Table:
    return Table(
        "Settings that differ",
        "Differences in the figures may come from these settings instead of the models.",
        ("setting", *settings),
        tuple((name, *(json.dumps(each.get(name)) for each in settings.values())) for name in names),
    )
