"""Compute the figures, tables and page of an evaluation from its rollouts on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyarrow import parquet

from lfpc_trl.errors import DataError, UserError, one_line
from lfpc_trl.evaluate.examples import examples_of
from lfpc_trl.evaluate.page import render, story_of
from lfpc_trl.evaluate.summary import COLUMNS, POOR_OVERLAP, Columns, summarise
from lfpc_trl.evaluate.tables import tables, to_markdown
from lfpc_trl.files import write_atomic
from lfpc_trl.json_values import read_json
from lfpc_trl.runs.reading import parts

EVALUATION, TABLES, PAGE = "evaluation.json", "tables.md", "report.html"
"""Files in an evaluation directory."""


def read_columns(output: Path, names: Sequence[str] = COLUMNS) -> Columns:
    """Read columns of all rollouts of an evaluation, in the order of its files.

    Raises:
        UserError: there are no rollouts, or a file cannot be read or lacks a column.
    """
    files = parts(output)
    if not files:
        raise UserError(f"{output}: no rollouts of an evaluation found (trajectories/*.parquet)")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for file in files:
        try:
            missing = set(names) - set(parquet.read_schema(file).names)
            table = None if missing else parquet.read_table(file, columns=list(names))
        except (OSError, ValueError, OverflowError) as error:  # base classes of Arrow's errors
            raise DataError(f"{file}: not a readable Parquet file ({one_line(error)})") from None
        if table is None:
            raise DataError(f"{file}: not an evaluation file, column {min(missing)} is missing")
        for name in names:
            columns[name] += table[name].to_pylist()
    return columns


def read_about(output: Path) -> dict[str, Any]:
    """Read `evaluation.json` of an evaluation: its settings and figures.

    Raises:
        UserError: the file does not exist or is not JSON.
    """
    path = output / EVALUATION
    if not path.is_file():
        raise UserError(f"{output}: no {EVALUATION} found; not the output of a finished lfpc eval")
    try:
        about: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    return about


def model_name(about: dict[str, Any], output: Path) -> str:
    """Return the name of the model directory, or else of the evaluation directory."""
    model = about.get("settings", {}).get("model")
    return Path(model).name if isinstance(model, str) and Path(model).name else output.resolve().name


def write_outputs(output: Path, *, poor_overlap: float = POOR_OVERLAP) -> dict[str, Any]:
    """Write the figures, tables and page of an evaluation whose rollouts are on disk.

    Args:
        output: its directory, with `trajectories/` and `evaluation.json`, to which `figures` is added.
        poor_overlap: overlap below which a crop covers the ground truth poorly.

    Returns:
        The figures.

    Raises:
        UserError: an error of `read_columns` or `read_about`.
    """
    about, columns = read_about(output), read_columns(output)
    figures = summarise(columns, poor_overlap=poor_overlap)
    name = model_name(about, output)
    all_tables = tables({name: figures})
    questions = sum(
        {g["benchmark"]: g["questions"] for g in figures["groups"] if g["category"] is None}.values()
    )
    page = render(
        title=f"Evaluation of {name}",
        lede=f"Accuracy, crop quality, and whether the answers depend on the crops, on {questions:,} "
        "questions.",
        story=story_of(figures),
        models={name: figures},
        columns={name: columns},
        tables=all_tables,
        settings={key: value for key, value in about.items() if key not in ("figures", "settings")}
        | about.get("settings", {}),
        examples=examples_of(output, columns),
        command=f"lfpc view {output.name}",
    )
    write_atomic(output / TABLES, to_markdown(all_tables, title=f"Evaluation of {name}"))
    write_atomic(output / PAGE, page)
    text = json.dumps(about | {"figures": figures}, indent=1, ensure_ascii=False)
    write_atomic(output / EVALUATION, text + "\n")
    return figures
