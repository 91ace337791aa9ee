"""The journal of an evaluation: a record per finished rollout, from which an interrupted run resumes.

A record holds what the model did, not its scores: those are computed when the results are written, from the
current answers and targets. Its key is benchmark, row, shown size, condition and sample. So two budgets with
the same shown size share their rollouts, and adding a budget later generates only new rollouts.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lfpc_trl.data.rows import Row, one_or_all
from lfpc_trl.errors import UserError
from lfpc_trl.evaluate.conditions import Condition, applies
from lfpc_trl.evaluate.questions import Benchmark, item_key
from lfpc_trl.evaluate.work import Done, EvaluationWork, PictureTasks, Task
from lfpc_trl.jobs.journal import Record, read_journal
from lfpc_trl.jobs.workers import Failure, Outcomes, Piece
from lfpc_trl.models.engines import Engine
from lfpc_trl.pictures.sizes import Size, shown_size
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import ChatEngine, RolloutSettings, Usage
from lfpc_trl.rollouts.prompts import prompt_digest, shown_in, system_text
from lfpc_trl.rollouts.respondent import Open
from lfpc_trl.rollouts.transcript import ending
from lfpc_trl.runs.trajectories import thumbnail, without_pictures


class Key(NamedTuple):
    """Identifies a rollout."""

    benchmark: str
    row_id: str
    shown: tuple[Size, ...]
    condition: Condition
    sample: int


@dataclass(frozen=True)
class Plan:
    """The rollouts that an evaluation needs.

    Attributes:
        benchmarks: the benchmarks; their names are unique.
        budgets: maximum visual tokens of the full image.
        conditions: as returned by `conditions.choose`.
        samples: number of samples per row, budget and condition.
        factor: side of a visual token in pixels.
    """

    benchmarks: tuple[Benchmark, ...]
    budgets: tuple[int, ...]
    conditions: tuple[Condition, ...]
    samples: int
    factor: int

    def sizes(self, row: Row, budget: int) -> tuple[Size, ...]:
        """Return the shown sizes of a row's pictures; the budget applies to each picture."""
        return tuple(shown_size(picture.size, budget, factor=self.factor) for picture in row.pictures)

    def conditions_of(self, row: Row) -> tuple[Condition, ...]:
        """Return the conditions that apply to a row."""
        return tuple(condition for condition in self.conditions if applies(condition, row))

    def wanted(self) -> Iterator[Key]:
        """Yield the key of every rollout; budgets with the same shown sizes share theirs."""
        for benchmark in self.benchmarks:
            for question in benchmark.questions:
                row = question.row
                for sizes in dict.fromkeys(self.sizes(row, budget) for budget in self.budgets):
                    for condition in self.conditions_of(row):
                        for sample in range(self.samples):
                            yield Key(benchmark.name, row.id, sizes, condition, sample)


# --- journals ----------------------------------------------------------------------------------------


def records_header(engine: str, model: str, crops: CropSettings, settings: RolloutSettings) -> dict[str, Any]:
    """Return the journal header: the settings that change a rollout, apart from row, size and condition.

    Budgets, conditions and samples are not included, as they only decide which rollouts are needed; nor is
    the batch size.

    Args:
        engine: name of the engine.
        model: identifies the model (`Respondent.fingerprint`).
        crops: how crops are cut.
        settings: how turns are generated.
    """
    cutting = asdict(replace(crops, crop_source="predicted"))
    return {
        "journal": "rollouts of lfpc eval",
        "model": model,
        "engine": engine,
        "prompts": [system_text(crops.frame), system_text(crops.frame, tools=False)],
        "crops": cutting | {"frame": crops.frame.value},
        "max_turns": settings.max_turns,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
    }


def as_record(done: Done, max_turns: int) -> Record:
    """Convert a finished rollout to a journal record."""
    row, rollout = done.rollout.row, done.rollout
    assert row.shown_sizes is not None
    messages, pictures = without_pictures(rollout.messages, first=len(row.pictures))
    turns = 1 if done.condition == "no_tool" else max_turns
    record = {
        "benchmark": done.task.benchmark,
        "id": row.id,
        "asked": prompt_digest(row, targets=_shows_targets(done.condition)),
        "shown": one_or_all(list(map(list, row.shown_sizes))),
        "condition": done.condition,
        "sample": done.task.sample,
        "messages": json.dumps(messages, default=str),  # ASCII: models can output lone surrogates
        "pictures": [_text(thumbnail(picture)) for picture in pictures],
        "ending": ending(rollout.messages, max_turns=turns, complete=rollout.complete, calls=rollout.calls),
        "seconds": rollout.seconds,
        "usage": asdict(rollout.usage),
    }
    if done.condition == "predicted":
        record["first_turn"] = rollout.first_turn
    if done.overviews is not None:
        record["overview"] = one_or_all([_text(thumbnail(overview)) for overview in done.overviews])
    return record


def overviews_in(record: Record) -> list[str]:
    """Return the overviews in a record that has them."""
    overview: str | list[str] = record["overview"]
    return [overview] if isinstance(overview, str) else overview


def _shows_targets(condition: Condition) -> bool:
    return condition in ("target", "elsewhere")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def read_records(folder: Path, header: Mapping[str, Any], plan: Plan) -> dict[Key, Record]:
    """Read the records for the rows of a plan from all journals in a folder. A rollout's first record counts.

    Raises:
        UserError: a journal has another header, or a row changed since its rollouts were generated.
    """
    rows = {
        (benchmark.name, question.row.id): question.row
        for benchmark in plan.benchmarks
        for question in benchmark.questions
    }
    digests = {
        name: {targets: prompt_digest(row, targets=targets) for targets in (False, True)}
        for name, row in rows.items()
    }
    records: dict[Key, Record] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for record in read_journal(path, header):
            name = record["benchmark"], record["id"]
            if name not in rows:
                continue  # a row that is no longer in the plan
            if record["asked"] != digests[name][_shows_targets(record["condition"])]:
                raise UserError(
                    f"{rows[name].name}: its question, choices, picture or targets changed since {path} was "
                    "written; use another --output, or delete that file to start over"
                )
            shown = shown_in(record)
            records.setdefault(Key(*name, shown, record["condition"], record["sample"]), record)
    return records


def usage_of(records: Iterable[Record]) -> Usage:
    """Sum the token usage of rollouts; records of older versions have none."""
    return sum((Usage(**record.get("usage", {})) for record in records), Usage())


def open_items(plan: Plan, records: Mapping[Key, Record]) -> dict[str, PictureTasks]:
    """Return the tasks whose rollouts are not in these records, by picture (`item_key`)."""
    missing: dict[tuple[str, str, tuple[Size, ...], int], list[Condition]] = defaultdict(list)
    for key in plan.wanted():
        if key not in records:
            missing[key.benchmark, key.row_id, key.shown, key.sample].append(key.condition)
    overviews = {key[:3] for key, record in records.items() if "overview" in record}
    items: dict[str, list[Task]] = defaultdict(list)
    questions = {
        (benchmark.name, question.row.id): question
        for benchmark in plan.benchmarks
        for question in benchmark.questions
    }
    for (benchmark, row_id, shown, sample), conditions in missing.items():
        question = questions[benchmark, row_id]
        predicted = records.get(Key(benchmark, row_id, shown, "predicted", sample))
        task = Task(
            benchmark,
            replace(question, row=question.row.shown_at(shown)),
            tuple(conditions),
            sample,
            None if predicted is None else tuple(predicted["first_turn"]),
            (benchmark, row_id, shown) not in overviews,
        )
        overviews.add((benchmark, row_id, shown))
        items[item_key(question.row)].append(task)
    return {picture: tuple(tasks) for picture, tasks in items.items()}


# --- work --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MakeRecords:
    """Sets up the work of one process, in which it loads the model.

    Attributes:
        open: loads the model.
        crops: how crops are cut.
        settings: how turns are generated.
        threads: number of torch threads; None for torch's default.
    """

    open: Open
    crops: CropSettings
    settings: RolloutSettings
    threads: int | None = None

    def __call__(self) -> "Records":
        """Load the model."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return Records(self.open(), self.crops, self.settings)


class Records:
    """The work of an evaluation: generates rollouts and yields them as records, keyed by `item_key`."""

    def __init__(self, engine: Engine | ChatEngine, crops: CropSettings, settings: RolloutSettings) -> None:
        self._work, self._max_turns = EvaluationWork(engine, crops, settings), settings.max_turns

    def __call__(self, items: Iterator[tuple[str, PictureTasks]]) -> Outcomes:
        """Yield records as rollouts finish; thumbnails are made while the pictures are in memory."""
        for outcome in self._work(items):
            if isinstance(outcome, Failure):
                yield outcome
            else:
                yield Piece(outcome.key, as_record(outcome, self._max_turns), outcome.last)
