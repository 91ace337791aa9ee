"""What an evaluation writes down at once: a record per rollout, from which a killed run goes on.

A record holds what the model did, not what that is worth: scores are made when the results are written, from
the answers and targets of that day. It is known by benchmark, row, shown size, condition and sample. So two
budgets at which a picture is shown alike share their rollouts, and a budget that is added later asks only
what is new.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lfpc_trl.data.rows import Row, one_or_all
from lfpc_trl.errors import UserError
from lfpc_trl.evaluate.conditions import Condition, applies
from lfpc_trl.evaluate.questions import Benchmark, item_key
from lfpc_trl.evaluate.work import Asking, Done, EvaluationWork, Item
from lfpc_trl.jobs.journal import Record, read_journal
from lfpc_trl.jobs.workers import Failure, Outcomes, Piece
from lfpc_trl.models.engines import Engine, EngineName, PromptLimits, new_engine
from lfpc_trl.models.weights import fingerprint
from lfpc_trl.pictures.sizes import Size, shown_size
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import RolloutSettings
from lfpc_trl.rollouts.prompts import asked, shown_in, system_text
from lfpc_trl.rollouts.transcript import ending
from lfpc_trl.runs.trajectories import thumbnail, without_pictures


class Key(NamedTuple):
    """What tells rollouts apart."""

    benchmark: str
    row_id: str
    shown: tuple[Size, ...]
    condition: Condition
    sample: int


@dataclass(frozen=True)
class Plan:
    """What an evaluation asks.

    Attributes:
        benchmarks: their names differ.
        budgets: visual tokens of the full image at most.
        conditions: of `conditions.choose`.
        samples: draws for every row, budget and condition.
        factor: pixels per side of a visual token.
    """

    benchmarks: tuple[Benchmark, ...]
    budgets: tuple[int, ...]
    conditions: tuple[Condition, ...]
    samples: int
    factor: int

    def sizes(self, row: Row, budget: int) -> tuple[Size, ...]:
        """How the pictures of a row are shown at a budget, which is for each of them."""
        return tuple(shown_size(picture.size, budget, factor=self.factor) for picture in row.pictures)

    def conditions_of(self, row: Row) -> tuple[Condition, ...]:
        """The conditions that can be made for a row."""
        return tuple(condition for condition in self.conditions if applies(condition, row))

    def wanted(self) -> Iterator[Key]:
        """Every rollout that is wanted; budgets that show a row alike want the same."""
        for benchmark in self.benchmarks:
            for question in benchmark.questions:
                row = question.row
                for sizes in dict.fromkeys(self.sizes(row, budget) for budget in self.budgets):
                    for condition in self.conditions_of(row):
                        for sample in range(self.samples):
                            yield Key(benchmark.name, row.id, sizes, condition, sample)


# --- journals ----------------------------------------------------------------------------------------


def records_header(
    engine: EngineName, model_dir: Path, crops: CropSettings, settings: RolloutSettings
) -> dict[str, Any]:
    """What rollouts depend on beside their row, their size and their condition: the header of their journals.

    Budgets, conditions and samples are not among it, nor is the size of the batches: they decide which
    rollouts are needed.
    """
    cutting = asdict(replace(crops, crop_source="predicted"))
    return {
        "journal": "rollouts of lfpc eval",
        "model": fingerprint(model_dir),
        "engine": engine,
        "prompts": [system_text(crops.frame), system_text(crops.frame, tools=False)],
        "crops": cutting | {"frame": crops.frame.value},
        "max_turns": settings.max_turns,
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed,
    }


def as_record(done: Done, max_turns: int) -> Record:
    """A finished rollout as a line of a journal."""
    row, rollout = done.rollout.row, done.rollout
    assert row.shown_sizes is not None
    messages, pictures = without_pictures(rollout.messages, first=len(row.pictures))
    turns = 1 if done.condition == "no_tool" else max_turns
    record = {
        "benchmark": done.asking.benchmark,
        "id": row.id,
        "asked": asked(row, targets=_shows_targets(done.condition)),
        "shown": one_or_all(list(map(list, row.shown_sizes))),
        "condition": done.condition,
        "sample": done.asking.sample,
        "messages": json.dumps(messages, default=str),  # ASCII: a model may write half a surrogate pair
        "pictures": [_text(thumbnail(picture)) for picture in pictures],
        "ending": ending(rollout.messages, max_turns=turns, complete=rollout.complete, calls=rollout.calls),
        "seconds": rollout.seconds,
    }
    if done.condition == "predicted":
        record["first_turn"] = rollout.first_turn
    if done.overviews is not None:
        record["overview"] = one_or_all([_text(thumbnail(overview)) for overview in done.overviews])
    return record


def overviews_in(record: Record) -> list[str]:
    """The pictures as they were shown, of a record that has them."""
    overview: str | list[str] = record["overview"]
    return [overview] if isinstance(overview, str) else overview


def _shows_targets(condition: Condition) -> bool:
    return condition in ("target", "elsewhere")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def read_records(folder: Path, header: Mapping[str, Any], plan: Plan) -> dict[Key, Record]:
    """What all the journals of a folder say about the rows of a plan. The first record of a rollout decides.

    Raises:
        UserError: a journal was made with another header, or a row was changed since it was asked.
    """
    rows = {
        (benchmark.name, question.row.id): question.row
        for benchmark in plan.benchmarks
        for question in benchmark.questions
    }
    digests = {
        name: {targets: asked(row, targets=targets) for targets in (False, True)}
        for name, row in rows.items()
    }
    records: dict[Key, Record] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for record in read_journal(path, header):
            name = record["benchmark"], record["id"]
            if name not in rows:
                continue  # a row that is no longer asked about
            if record["asked"] != digests[name][_shows_targets(record["condition"])]:
                raise UserError(
                    f"{rows[name].name}: its question, choices, picture or targets changed since {path} was "
                    "written; take another --output, or delete that file to ask again"
                )
            shown = shown_in(record)
            records.setdefault(Key(*name, shown, record["condition"], record["sample"]), record)
    return records


def open_items(plan: Plan, records: Mapping[Key, Record]) -> dict[str, Item]:
    """What is not answered by these records, by picture; see `item_key`."""
    wanted: dict[tuple[str, str, tuple[Size, ...], int], list[Condition]] = defaultdict(list)
    for key in plan.wanted():
        if key not in records:
            wanted[key.benchmark, key.row_id, key.shown, key.sample].append(key.condition)
    overviews = {key[:3] for key, record in records.items() if "overview" in record}
    items: dict[str, list[Asking]] = defaultdict(list)
    questions = {
        (benchmark.name, question.row.id): question
        for benchmark in plan.benchmarks
        for question in benchmark.questions
    }
    for (benchmark, row_id, shown, sample), conditions in wanted.items():
        question = questions[benchmark, row_id]
        before = records.get(Key(benchmark, row_id, shown, "predicted", sample))
        asking = Asking(
            benchmark,
            replace(question, row=question.row.shown_at(shown)),
            tuple(conditions),
            sample,
            None if before is None else tuple(before["first_turn"]),
            (benchmark, row_id, shown) not in overviews,
        )
        overviews.add((benchmark, row_id, shown))
        items[item_key(question.row)].append(asking)
    return {picture: tuple(askings) for picture, askings in items.items()}


# --- work --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MakeRecords:
    """Makes the work of one process: loads the model there.

    Attributes:
        engine: name of the engine.
        model_dir: the model.
        limits: the largest prompt to come.
        crops: how crops are cut.
        settings: how turns are written.
        threads: torch threads; None for torch's own number.
    """

    engine: EngineName
    model_dir: Path
    limits: PromptLimits
    crops: CropSettings
    settings: RolloutSettings
    threads: int | None = None

    def __call__(self) -> "Records":
        """Load the model."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return Records(new_engine(self.engine, self.model_dir, self.limits), self.crops, self.settings)


class Records:
    """The work of an evaluation, its rollouts as records. The key of an item is that of its rows."""

    def __init__(self, engine: Engine, crops: CropSettings, settings: RolloutSettings) -> None:
        self._work, self._max_turns = EvaluationWork(engine, crops, settings), settings.max_turns

    def __call__(self, items: Iterator[tuple[str, Item]]) -> Outcomes:
        """Records as rollouts end; thumbnails are made while the pictures are at hand."""
        for found in self._work(items):
            if isinstance(found, Failure):
                yield found
            else:
                yield Piece(found.key, as_record(found, self._max_turns), found.last)
