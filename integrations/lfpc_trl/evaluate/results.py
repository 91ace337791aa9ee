"""The results of an evaluation: one row per rollout in Parquet files, scored when they are written.

The columns are described in `docs/reference/evaluation.md`.
"""

import base64
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lfpc_trl.data.rows import Row
from lfpc_trl.evaluate.questions import Benchmark, Question
from lfpc_trl.evaluate.records import Key, Plan, overviews_in
from lfpc_trl.files import atomic_file
from lfpc_trl.jobs.journal import Record
from lfpc_trl.pictures.sizes import tokens_of
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.prompts import Block, Message, build_prompt, question_blocks
from lfpc_trl.rollouts.transcript import GroundingSettings, ScoredRollout, score_transcripts
from lfpc_trl.runs.trajectories import DIRECTORY, Trajectory, as_columns, picture_fields, schema

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_TOGETHER = 100
"""Rollouts per row group: reading one conversation decompresses a whole group."""
_CROP_MEASURES = ("iou", "overlap", "bbox_ratio", "crop_tokens")
_SCORES = ("accuracy", "format", "tool_bonus", "grounding", *_CROP_MEASURES)


class _Result(NamedTuple):
    """A rollout and its position in its benchmark."""

    group: int
    rollout: int
    budget: int
    question: Question
    key: Key
    record: Record


def results_schema(*, several: bool = False) -> "pa.Schema":
    """Return the schema of the results: the columns of a trajectory plus those of an evaluation.

    Args:
        several: whether some question has several pictures.
    """
    import pyarrow as pa  # slow import

    added = pa.schema(
        {
            "benchmark": pa.string(),
            "budget": pa.int32(),
            "condition": pa.string(),
            "sample": pa.int32(),
            "question_id": pa.string(),
            "category": pa.string(),
            "accuracy": pa.float64(),
            "well_formed": pa.bool_(),
            "turns": pa.int32(),
            "crops": pa.int32(),
            "failed_calls": pa.int32(),
            "iou": pa.float64(),
            "overlap": pa.float64(),
            "bbox_ratio": pa.float64(),
            "crop_tokens": pa.float64(),
            "shown_tokens": pa.int32(),
            "seconds": pa.float64(),
        }
    )
    return pa.schema([*added, *schema(several=several)])


def write_results(
    output: Path,
    plan: Plan,
    records: Mapping[Key, Record],
    crops: CropSettings,
    grounding: GroundingSettings = GroundingSettings(),  # noqa: B008 - frozen
) -> list[Path]:
    """Write one file per benchmark, each atomically; remove the files of other benchmarks.

    Args:
        output: the directory of the evaluation.
        plan: the plan of the evaluation; each of its rollouts has a record.
        records: the rollouts.
        crops: how crops were cut.
        grounding: how crops are compared with targets.
    """
    import pyarrow as pa
    from pyarrow import parquet

    folder = output / DIRECTORY
    folder.mkdir(parents=True, exist_ok=True)
    overviews = {key[:3]: overviews_in(record) for key, record in records.items() if "overview" in record}
    files = []
    for number, benchmark in enumerate(plan.benchmarks, start=1):
        path = folder / f"{number:02d}-{_safe(benchmark.name)}.parquet"
        columns_of = results_schema(
            several=any(len(question.row.pictures) > 1 for question in benchmark.questions)
        )
        with (
            atomic_file(path) as draft,
            parquet.ParquetWriter(draft, columns_of, compression="zstd") as writer,
        ):
            results = _results(plan, benchmark, records)
            while row_group := list(itertools.islice(results, ROWS_TOGETHER)):
                columns = _columns(row_group, overviews, crops, grounding)
                writer.write_table(pa.Table.from_pylist(columns, schema=columns_of))
        files.append(path)
    for path in [*folder.glob("*.parquet"), *folder.glob("*.tmp")]:
        if path not in files:
            path.unlink()
    return files


def _safe(name: str) -> str:
    """Make a name safe to use in a file name."""
    return re.sub(r"[^\w.-]+", "-", name)


def _results(plan: Plan, benchmark: Benchmark, records: Mapping[Key, Record]) -> Iterator[_Result]:
    """Yield the rollouts of a benchmark by row, budget, condition and sample."""
    for group, question in enumerate(benchmark.questions):
        row = question.row
        for budget in plan.budgets:
            sizes = plan.sizes(row, budget)
            runs = itertools.product(plan.conditions_of(row), range(plan.samples))
            for rollout, (condition, sample) in enumerate(runs):
                key = Key(benchmark.name, row.id, sizes, condition, sample)
                yield _Result(group, rollout, budget, question, key, records[key])


def _columns(
    results: Sequence[_Result],
    overviews: Mapping[Any, list[str]],
    crops: CropSettings,
    grounding: GroundingSettings,
) -> list[dict[str, Any]]:
    completions = [json.loads(each.record["messages"]) for each in results]
    rows = [_shown_row(each) for each in results]
    scored = score_transcripts(completions, rows, crops, grounding)
    columns = []
    for each, completion, score in zip(results, completions, scored, strict=True):
        trajectory = _trajectory(each, completion, score, overviews[each.key[:3]], crops)
        columns.append(as_columns(trajectory) | _measures(each, score, crops))
    return columns


def _shown_row(result: _Result) -> Row:
    return result.question.row.shown_at(result.key.shown)


def _trajectory(
    result: _Result,
    completion: list[Message],
    score: ScoredRollout,
    overviews: list[str],
    crops: CropSettings,
) -> Trajectory:
    row, record = result.question.row, result.record
    shown: list[Block] = [{"type": "image", "thumbnail": number} for number in range(len(overviews))]
    prompt = build_prompt(
        crops.frame,
        question_blocks(row, shown),
        tools=result.key.condition != "no_tool",
        pictures=len(row.pictures),
    )
    return Trajectory(
        step=result.budget,
        group=result.group,
        rollout=result.rollout,
        row_id=row.id,
        question=row.question,
        choices=row.choices,
        accepted=row.answer,
        messages=[*prompt, *completion],
        thumbnails=tuple(base64.b64decode(each) for each in (*overviews, *record["pictures"])),
        answer=score.answer,
        ending=record["ending"],
        masked=False,
        boxes=score.crops,
        scores={name: _or_none(getattr(score, name)) for name in _SCORES},
        reward=_or_none(score.accuracy),
        advantage=None,
        **picture_fields(row, score.crop_images),
    )


def _measures(result: _Result, score: ScoredRollout, crops: CropSettings) -> dict[str, Any]:
    """Return the columns that an evaluation adds to a trajectory."""
    return {
        "benchmark": result.key.benchmark,
        "budget": result.budget,
        "condition": result.key.condition,
        "sample": result.key.sample,
        "question_id": result.question.question_id,
        "category": result.question.category,
        "accuracy": _or_none(score.accuracy),
        "well_formed": score.format >= 0,
        "turns": score.turns,
        "crops": len(score.crops),
        "failed_calls": score.failed_calls,
        **{name: _or_none(getattr(score, name)) for name in _CROP_MEASURES},
        "shown_tokens": sum(tokens_of(size, crops.factor) for size in result.key.shown),
        "seconds": result.record["seconds"],
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
