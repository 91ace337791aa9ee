"""From the rollouts of an evaluation on the disk to its figures, tables and page."""

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
from lfpc_trl.files import write_whole
from lfpc_trl.json_values import read_json
from lfpc_trl.runs.reading import parts

EVALUATION, TABLES, PAGE = "evaluation.json", "tables.md", "report.html"
"""Files in the directory of an evaluation."""


def read_columns(output: Path, names: Sequence[str] = COLUMNS) -> Columns:
    """Columns of all rollouts of an evaluation, in the order of its files.

    Raises:
        UserError: there are no rollouts, or a file cannot be read or lacks a column.
    """
    files = parts(output)
    if not files:
        raise UserError(f"{output}: holds no rollouts of an evaluation (trajectories/*.parquet)")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for file in files:
        try:
            missing = set(names) - set(parquet.read_schema(file).names)
            table = None if missing else parquet.read_table(file, columns=list(names))
        except (OSError, ValueError, OverflowError) as error:  # Arrow's own errors are of these kinds
            raise DataError(f"{file}: not a readable Parquet file ({one_line(error)})") from None
        if table is None:
            raise DataError(f"{file}: not of an evaluation, has no column {min(missing)}")
        for name in names:
            columns[name] += table[name].to_pylist()
    return columns


def read_about(output: Path) -> dict[str, Any]:
    """What an evaluation says of itself.

    Raises:
        UserError: there is no such file, or it is not JSON.
    """
    path = output / EVALUATION
    if not path.is_file():
        raise UserError(f"{output}: holds no {EVALUATION}: not the output of a finished lfpc eval")
    try:
        about: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    return about


def model_name(about: dict[str, Any], output: Path) -> str:
    """The name of the model directory, or of the evaluation's own."""
    model = about.get("settings", {}).get("model")
    return Path(model).name if isinstance(model, str) and Path(model).name else output.resolve().name


def write_outputs(output: Path, *, poor_overlap: float = POOR_OVERLAP) -> dict[str, Any]:
    """Write the figures, tables and page of an evaluation whose rollouts are written.

    Args:
        output: its directory, with `trajectories/` and `evaluation.json`, which gets `figures`.
        poor_overlap: overlap below which a crop covers the truth poorly.

    Returns:
        The figures.

    Raises:
        UserError: as `read_columns` and `read_about`.
    """
    about, columns = read_about(output), read_columns(output)
    figures = summarise(columns, poor_overlap=poor_overlap)
    name = model_name(about, output)
    found = tables({name: figures})
    questions = sum(
        {g["benchmark"]: g["questions"] for g in figures["groups"] if g["category"] is None}.values()
    )
    page = render(
        title=f"Evaluation of {name}",
        lede=f"How often it is right, how well it crops, and whether its answers come from its crops, on "
        f"{questions:,} questions.",
        story=story_of(figures),
        models={name: figures},
        columns={name: columns},
        tables=found,
        settings={key: value for key, value in about.items() if key not in ("figures", "settings")}
        | about.get("settings", {}),
        examples=examples_of(output, columns),
        command=f"lfpc view {output.name}",
    )
    write_whole(output / TABLES, to_markdown(found, title=f"Evaluation of {name}"))
    write_whole(output / PAGE, page)
    text = json.dumps(about | {"figures": figures}, indent=1, ensure_ascii=False)
    write_whole(output / EVALUATION, text + "\n")
    return figures
