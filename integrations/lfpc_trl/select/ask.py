"""Resolution selection: the model is asked at each level of a row's ladder until its answer changes.

The level for stage 1 is chosen once per row, before training, by the model itself. `ladder` holds the rules;
this module asks the model, without the crop tool and greedily by default (our choice), and every answer is
saved at once.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from PIL import Image

from lfpc_rewards import Frame, parse_completions
from lfpc_trl.data.rows import Row, one_or_all
from lfpc_trl.errors import UserError, not_one_of
from lfpc_trl.jobs.journal import Record, read_journal
from lfpc_trl.jobs.running import check_finished
from lfpc_trl.jobs.workers import Failure, Outcome, Outcomes, Piece
from lfpc_trl.models.engines import Engine, TransformersEngine
from lfpc_trl.models.processors import factor as factor_of
from lfpc_trl.pictures.originals import load_shown
from lfpc_trl.pictures.sizes import tokens_of
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import (
    ChatEngine,
    Job,
    Rollout,
    RolloutSettings,
    Usage,
    factor_of_engine,
    stream_rollouts,
)
from lfpc_trl.rollouts.prompts import prompt_digest, question_text, shown_in, system_text
from lfpc_trl.rollouts.respondent import Open
from lfpc_trl.select.ladder import (
    Answers,
    Ladder,
    Level,
    SameAnswer,
    Selection,
    comparison,
    is_decided,
    known_answers,
    same_answer,
    select_by_answers,
    select_by_rule,
)

Method = Literal["answer", "hard", "random"]

_RENDERERS = 4
"""Threads that decode and resize pictures while the engine runs."""


# --- asking ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LadderItem:
    """A row that needs further answers.

    Attributes:
        row: the row.
        levels: its ladder, finest first.
        answers: the known answers, those of the first levels.
    """

    row: Row
    levels: tuple[Level, ...]
    answers: tuple[str | None, ...] = ()

    @property
    def sizes(self) -> Level:
        """The shown sizes of the pictures at the next level."""
        return self.levels[len(self.answers)]


class _Waiting(NamedTuple):
    item: LadderItem
    pictures: Future[list[Image.Image]]


@dataclass(frozen=True)
class AskSettings:
    """How questions are asked.

    Attributes:
        batch_size: questions per batch.
        batch_tokens: most visual tokens per batch; a larger picture forms a batch of its own.
        max_new_tokens: most tokens of an answer.
        temperature: 0 decodes greedily.
        seed: seed of the sampling.
        same: the comparison of answers, see `ladder.comparison`.
    """

    batch_size: int = 32
    batch_tokens: int = 65_536
    max_new_tokens: int = 2048
    temperature: float = 0.0
    seed: int = 0
    same: str = "rewards"


class LadderWork:
    """Asks about rows level by level; a row is done when its answer changes or its ladder ends.

    Two batches are open at a time: while the engine answers one, threads prepare the pictures of the other.
    An item's key is the row's id, its record the answer at one level.
    """

    def __init__(self, engine: Engine | ChatEngine, settings: AskSettings) -> None:
        self._engine, self._settings = engine, settings
        self._same = comparison(settings.same)
        self._factor = factor_of_engine(engine)

    def __call__(self, items: Iterator[tuple[str, LadderItem]]) -> Outcomes:
        """Yield answers as they arrive, batch by batch."""
        threads = ThreadPoolExecutor(_RENDERERS)

        def render(item: LadderItem) -> _Waiting:
            return _Waiting(item, threads.submit(_render, item))

        waiting: deque[_Waiting] = deque()
        more = True
        try:
            while more or waiting:
                while more and self._has_room(waiting):
                    pair = next(items, None)
                    more = pair is not None
                    if pair is not None:
                        waiting.append(render(pair[1]))
                batch, pictures = [], []
                for item, shown in self._take(waiting):
                    error = shown.exception()
                    if error is None:
                        batch.append(item)
                        pictures.append(shown.result())
                    else:  # a picture was deleted or damaged since the rows were read
                        yield Failure((item.row.id,), str(error))
                for item, found in zip(batch, self._answers(batch, pictures), strict=True):
                    if isinstance(found, Exception):
                        yield Failure((item.row.id,), str(found))
                        continue
                    answer, usage = found
                    after = replace(item, answers=(*item.answers, answer))
                    last = is_decided(after.answers, len(item.levels), item.row.choices, self._same)
                    yield Piece(item.row.id, as_record(item, answer) | {"usage": asdict(usage)}, last)
                    if not last:
                        waiting.append(render(after))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _has_room(self, waiting: Sequence[_Waiting]) -> bool:
        tokens = sum(self._tokens(item) for item, _ in waiting)
        return len(waiting) < 2 * self._settings.batch_size and tokens < 2 * self._settings.batch_tokens

    def _take(self, waiting: deque[_Waiting]) -> Iterator[_Waiting]:
        """The next batch: at least one question, whatever its size."""
        tokens = 0
        for count in range(min(self._settings.batch_size, len(waiting))):
            tokens += self._tokens(waiting[0].item)
            if count and tokens > self._settings.batch_tokens:
                return
            yield waiting.popleft()

    def _tokens(self, item: LadderItem) -> int:
        return sum(tokens_of(size, self._factor) for size in item.sizes)

    def _answers(
        self, batch: Sequence[LadderItem], pictures: Sequence[Sequence[Image.Image]]
    ) -> list[tuple[str | None, Usage] | Exception]:
        """The answer and usage of each, or the error."""
        # Without the tool no box is parsed, so any frame will do.
        crops = CropSettings(frame=Frame.SHOWN, factor=self._factor)
        jobs = [
            Job(item.row.shown_at(item.sizes), crops, tools=False, pictures=shown)
            for item, shown in zip(batch, pictures, strict=True)
        ]
        settings = RolloutSettings(
            max_new_tokens=self._settings.max_new_tokens,
            temperature=self._settings.temperature,
            seed=self._settings.seed,
            batch_size=max(1, len(batch)),
        )
        waiting = iter(jobs)
        outcomes = dict(stream_rollouts(self._engine, lambda: next(waiting, None), settings))
        rollouts = {job: each for job, each in outcomes.items() if isinstance(each, Rollout)}
        parsed = parse_completions([each.messages for each in rollouts.values()])
        answers: dict[Job, tuple[str | None, Usage] | Exception] = {
            job: each for job, each in outcomes.items() if isinstance(each, Exception)
        }
        answers |= {
            job: (each.answer, rollouts[job].usage) for job, each in zip(rollouts, parsed, strict=True)
        }
        return [answers[job] for job in jobs]


def _render(item: LadderItem) -> list[Image.Image]:
    """Decode and resize the pictures of the next level.

    Raises:
        OSError: a picture cannot be read; names it.
    """
    shown = []
    for picture, size in zip(item.row.pictures, item.sizes, strict=True):
        try:
            shown.append(load_shown(picture.image, size))
        except Exception as error:  # Pillow's decoders raise arbitrary errors on damaged files
            raise OSError(f"{picture.image}: {error}") from None
    return shown


@dataclass(frozen=True)
class MakeLadderWork:
    """Makes the `LadderWork` of a worker process: loads the model there.

    Attributes:
        open: opens the model.
        settings: how questions are asked.
        threads: torch threads; None for torch's default.
    """

    open: Open
    settings: AskSettings
    threads: int | None = None

    def __call__(self) -> LadderWork:
        """Load the model."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return LadderWork(self.open(), self.settings)


def check_questions(rows: Sequence[Row], special: Collection[str]) -> None:
    """Raise `UserError` if a question contains one of the processor's special tokens, `special`."""
    for row in rows:
        found = next((token for token in special if token in question_text(row)), None)
        if found is not None:
            raise UserError(
                f"{row.name}: question and choices must not hold {found!r}, a special token of this model"
            )


# --- answers on disk ---------------------------------------------------------------------------------


def answers_header(engine: str, model: str, settings: AskSettings) -> dict[str, Any]:
    """The settings that answers depend on besides the row: the header of their journals.

    The comparison and the batch size are left out: they only decide which answers are needed.
    """
    return {
        "journal": "answers of lfpc select-resolution",
        "model": model,
        "engine": engine,
        "prompt": system_text(Frame.SHOWN, tools=False),
        "max_new_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "seed": settings.seed if settings.temperature > 0 else None,
    }


def as_record(item: LadderItem, answer: str | None) -> Record:
    """The answer at an item's next level, as a journal record."""
    shown = one_or_all(list(map(list, item.sizes)))
    return {"id": item.row.id, "asked": prompt_digest(item.row), "shown": shown, "answer": answer}


def read_answers(
    folder: Path, header: Mapping[str, Any], rows: Sequence[Row]
) -> dict[tuple[str, Level], str | None]:
    """Read the answers about these rows from all journals of a folder. The first journal with an answer wins.

    Raises:
        UserError: a journal has another header, or a row changed since it was asked about.
    """
    by_id = {row.id: row for row in rows}
    digests = {row.id: prompt_digest(row) for row in rows}
    answers: dict[tuple[str, Level], str | None] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for record in read_journal(path, header):
            name = record["id"]
            if name not in by_id:
                continue  # a row that was removed from the data
            if record["asked"] != digests[name]:
                raise UserError(
                    f"{by_id[name].name}: its question, choices or picture changed since {path} was written; "
                    "choose another --output, or delete that file to ask again"
                )
            answers.setdefault((name, shown_in(record)), record["answer"])
    return answers


def spent(folder: Path, header: Mapping[str, Any]) -> tuple[int, Usage]:
    """How many questions all the runs behind a folder have had answered, and their tokens.

    Raises:
        UserError: as `read_answers`.
    """
    records = [record for path in sorted(folder.glob("*.jsonl")) for record in read_journal(path, header)]
    usage = Usage()
    for record in records:
        usage += Usage(**record["usage"])
    return len(records), usage


def open_items(
    rows: Sequence[Row], ladders: Sequence[tuple[Level, ...]], answers: Answers, same: SameAnswer
) -> dict[str, LadderItem]:
    """The rows that these answers do not decide, by id."""
    items = {}
    for row, levels in zip(rows, ladders, strict=True):
        known = known_answers(row, levels, answers)
        if not is_decided(known, len(levels), row.choices, same):
            items[row.id] = LadderItem(row, levels, tuple(known))
    return items


class Collector:
    """Collects the outcomes of the work.

    Attributes:
        answers: all answers, including those known before.
        failures: the rows that failed, with the errors.
        rows: rows that are done.
        steps: levels answered or no longer needed, out of `total`.
    """

    def __init__(self, items: Mapping[str, LadderItem], answers: Answers) -> None:
        self.answers = dict(answers)
        self.failures: list[Failure] = []
        self.rows = self.steps = 0
        self._left = {key: len(item.levels) - len(item.answers) for key, item in items.items()}
        self.total = sum(self._left.values())

    def take(self, outcome: Outcome) -> None:
        """Add an answer or a failure."""
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            return
        self.answers[outcome.key, shown_in(outcome.record)] = outcome.record["answer"]
        steps = self._left[outcome.key] if outcome.last else 1
        self._left[outcome.key] -= steps
        self.steps += steps
        self.rows += outcome.last

    def check(self) -> None:
        """Raise `UserError` if a row failed, naming the first one and its error."""
        check_finished(self.failures, "row")


# --- the whole selection -----------------------------------------------------------------------------


def select_resolution(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
    *,
    method: Method = "answer",
    finest: int | None = None,
    coarsest: int = 64,
    seed: int = 0,
    max_new_tokens: int = 2048,
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> Selection:
    """Choose the size at which each row's picture is shown, in this process with a loaded model.

    `lfpc select-resolution` does the same in many processes and saves every answer.

    * `answer`: the first level whose answer differs from the answer at the finest level.
    * `hard`: the coarsest level of each row (ablation).
    * `random`: a level drawn uniformly, from the seed and the row's id (ablation).

    Args:
        model: the model that will be trained; only used by the method `answer`, else it may be None.
        processor: its processor.
        rows: rows; an existing `shown_size` is replaced.
        method: as above.
        finest: visual tokens of the finest level; None for the picture's own, up to the processor's limit.
        coarsest: visual tokens of the coarsest level.
        seed: seed of `random`.
        max_new_tokens: most tokens of an answer.
        batch_size: rows per batch.
        progress: called with the number of newly finished rows.

    Returns:
        New rows and a summary.

    Raises:
        ValueError: an unknown method, or not 1 <= coarsest <= finest.
        UserError: a picture was deleted.
    """
    if method not in get_args(Method):
        raise ValueError(not_one_of("method", method, get_args(Method)))
    side = factor_of(processor)
    limit = int(processor.image_processor.size["longest_edge"]) // side**2
    ladder = Ladder(finest, coarsest)
    ladders = [
        ladder.levels([picture.size for picture in row.pictures], factor=side, limit=limit) for row in rows
    ]
    if method != "answer":
        if progress is not None:
            progress(len(rows))
        return select_by_rule(rows, ladders, method=method, factor=side, seed=seed)
    settings = AskSettings(batch_size=batch_size, max_new_tokens=max_new_tokens)
    work = LadderWork(TransformersEngine(model, processor), settings)
    items = open_items(rows, ladders, {}, same_answer)
    collector = Collector(items, {})
    told = 0
    for outcome in work(iter(items.items())):
        collector.take(outcome)
        done = len(rows) * collector.steps // collector.total
        if progress is not None and done > told:
            progress(done - told)
            told = done
    collector.check()
    return select_by_answers(rows, ladders, collector.answers, factor=side)
