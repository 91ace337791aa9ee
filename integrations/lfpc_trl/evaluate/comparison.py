"""Several evaluations over the same questions side by side."""

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
from lfpc_trl.files import write_whole

COMPARISON = "comparison.json"
"""File with the figures of all evaluations and their differences."""

_CONTENT = ("question_id", "question", "choices", "accepted", "category")
_OWN_SETTINGS = ("model", "fingerprint")  # differ because the models do


def write_comparison(
    evaluations: Mapping[str, Path],
    output: Path,
    *,
    baseline: str | None = None,
    poor_overlap: float = POOR_OVERLAP,
) -> list[str]:
    """Write tables, figures and a page of several evaluations.

    Compared is what all of them hold: the same benchmarks at the same budgets. A benchmark must be the same
    row by row.

    Args:
        evaluations: name to output directory, in the order of the tables.
        output: a directory; made, its files of an earlier comparison replaced.
        baseline: the one that is subtracted from the others; the first by default.
        poor_overlap: overlap below which a crop covers the truth poorly.

    Returns:
        Remarks on what only some of the evaluations hold and is left out.

    Raises:
        UserError: fewer than two, an unknown baseline, evaluations of different questions, or as
            `read_columns` and `read_about`.
    """
    if len(evaluations) < 2:
        raise UserError(f"two evaluations or more are compared, got {len(evaluations)}")
    baseline = next(iter(evaluations)) if baseline is None else baseline
    if baseline not in evaluations:
        raise UserError(not_one_of("--baseline", baseline, evaluations))
    settings = {name: _flat(read_about(path).get("settings", {})) for name, path in evaluations.items()}
    everything = {
        name: read_columns(path, (*COLUMNS, *(each for each in _CONTENT if each not in COLUMNS)))
        for name, path in evaluations.items()
    }
    shared, notes = _shared(everything)
    columns = {name: _only(each, shared) for name, each in everything.items()}

    figures = {name: summarise(each, poor_overlap=poor_overlap) for name, each in columns.items()}
    changes = _changes(columns, baseline, poor_overlap)
    differing = _differing(settings)
    found = [
        *change_tables(changes, baseline),
        *tables(figures),
        *([_settings_table(differing, settings)] if differing else []),
    ]
    names = ", ".join(evaluations)
    title = f"Comparison of {names}"
    output.mkdir(parents=True, exist_ok=True)
    page = render(
        title=title,
        lede="The same questions, put to each model. Differences are paired question by question.",
        story=[*comparison_story(changes, baseline), *([("Left out", notes)] if notes else [])],
        models=figures,
        columns=columns,
        tables=found,
        settings={name: str(path) for name, path in evaluations.items()} | {"baseline": baseline},
    )
    plain = {
        "baseline": baseline,
        "models": figures,
        "changes": changes,
        "settings": settings,
        "notes": notes,
    }
    write_whole(output / TABLES, to_markdown(found, title=title, intro=notes))
    write_whole(output / PAGE, page)
    write_whole(output / COMPARISON, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    return notes


# --- the same questions ------------------------------------------------------------------------------


def _shared(everything: Mapping[str, Columns]) -> tuple[set[tuple[str, int]], list[str]]:
    """The (benchmark, budget) that all hold, and remarks on the others."""
    asked = {name: _asked(columns) for name, columns in everything.items()}
    first, *others = asked
    notes: list[str] = []
    benchmarks = [each for each in asked[first] if all(each in asked[name] for name in others)]
    if not benchmarks:
        held = "; ".join(f"{name} has {', '.join(each)}" for name, each in asked.items())
        raise UserError(f"the evaluations share no benchmark: {held}")
    for name, each in asked.items():
        only = [benchmark for benchmark in each if benchmark not in benchmarks]
        if only:
            notes.append(f"{', '.join(only)}: not in all evaluations ({name} has it).")
    shared = set()
    for benchmark in benchmarks:
        for name in others:
            _same_rows(benchmark, first, asked[first][benchmark][0], name, asked[name][benchmark][0])
        budgets = {name: each[benchmark][1] for name, each in asked.items()}
        common = set.intersection(*budgets.values())
        held = "; ".join(f"{name} at {_listed(each)}" for name, each in budgets.items())
        if not common:
            raise UserError(f"the budgets of {benchmark} do not overlap: {held}")
        if any(each != common for each in budgets.values()):
            notes.append(f"{benchmark} is compared at {_listed(common)} visual tokens only: {held}.")
        shared |= {(benchmark, budget) for budget in common}
    return shared, notes


def _listed(budgets: set[int]) -> str:
    return " and ".join(f"{budget:,}" for budget in sorted(budgets))


def _asked(columns: Columns) -> dict[str, tuple[dict[str, dict[str, Any]], set[int]]]:
    """By benchmark: what each row asks, and the budgets."""
    found: dict[str, tuple[dict[str, dict[str, Any]], set[int]]] = {}
    names = ("benchmark", "budget", "row_id", *_CONTENT)
    for benchmark, budget, row, *content in zip(*(columns[name] for name in names), strict=True):
        rows, budgets = found.setdefault(benchmark, ({}, set()))
        rows[row] = dict(zip(_CONTENT, content, strict=True))  # the same for each of its rollouts
        budgets.add(budget)
    return found


def _same_rows(
    benchmark: str,
    first: str,
    ours: dict[str, dict[str, Any]],
    second: str,
    theirs: dict[str, dict[str, Any]],
) -> None:
    for name, these, those in ((first, ours, theirs), (second, theirs, ours)):
        only = [row for row in these if row not in those]
        if only:
            raise UserError(
                f"{first} and {second} were asked different questions of {benchmark}: {len(only)} of "
                f"{len(these)} rows are only in {name}, such as {only[0]}"
            )
    for row, content in ours.items():
        for column in _CONTENT:
            if content[column] != theirs[row][column]:
                raise UserError(
                    f"{first} and {second} were asked different questions of {benchmark}: row {row} differs "
                    f"in its {column}: {_short(content[column])} and {_short(theirs[row][column])}"
                )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


def _only(columns: Columns, shared: set[tuple[str, int]]) -> Columns:
    places = zip(columns["benchmark"], columns["budget"], strict=True)
    kept = [number for number, place in enumerate(places) if place in shared]
    return {name: [values[number] for number in kept] for name, values in columns.items()}


# --- what differs ------------------------------------------------------------------------------------


def _changes(
    columns: Mapping[str, Columns], baseline: str, poor_overlap: float
) -> dict[str, list[dict[str, Any]]]:
    """By model, its groups with each figure minus that of the baseline."""
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
        for place, group in own.items():
            found = differences(group, groups[baseline][place], list(group.values))
            plain = {figure: dataclasses.asdict(each) for figure, each in found.items()}
            changes[name].append(described(group) | {"figures": plain})
    return changes


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those inside others named `outer.inner`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = _flat(value) if isinstance(value, Mapping) else None
        flat |= {name: value} if inner is None else {f"{name}.{each}": inner[each] for each in inner}
    return flat


def _differing(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The settings in which evaluations differ although their models need not."""
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
        "Differences in the figures may come from these and not from the models.",
        ("setting", *settings),
        tuple((name, *(json.dumps(each.get(name)) for each in settings.values())) for name in names),
    )
