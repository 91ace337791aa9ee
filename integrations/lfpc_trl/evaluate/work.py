"""The rollouts of an evaluation, as work that can be divided among processes.

An item is a picture with all that is asked about it, so an original is decoded once. Its rollouts under all
conditions share batches with those of other items; a rollout that begins as another one starts as soon as
that first turn is known.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from PIL import Image

from lfpc_trl.data.rows import Picture
from lfpc_trl.evaluate.conditions import Condition, begins_as_predicted, crops_under
from lfpc_trl.evaluate.questions import Question
from lfpc_trl.jobs.workers import Failure
from lfpc_trl.models.engines import Engine
from lfpc_trl.pictures.originals import load_original, load_shown
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import Job, Rollout, RolloutSettings, stream_rollouts

_RENDERERS = 4
"""Threads that decode and shrink pictures while the engine works."""


@dataclass(frozen=True)
class Asking:
    """A question put once, at one size: a rollout under each condition.

    Attributes:
        benchmark: its name.
        question: the question; its row has a `shown_size`.
        conditions: those whose rollouts are wanted.
        sample: which of several draws.
        first_turn: that of `predicted`, where it is known and `predicted` is not wanted.
        needs_overview: whether the pictures as they are shown are wanted with the first of these rollouts.
    """

    benchmark: str
    question: Question
    conditions: tuple[Condition, ...]
    sample: int = 0
    first_turn: tuple[int, ...] | None = None
    needs_overview: bool = False


Item = tuple[Asking, ...]
"""All that is asked about one picture, or about the same several. Its key is their path."""


@dataclass(frozen=True)
class Done:
    """A finished rollout.

    Attributes:
        key: of its item.
        asking: what was asked.
        condition: under which condition.
        rollout: what the model did.
        overviews: the pictures as they were shown, if this rollout is to bring them.
        last: whether its item is done with it.
    """

    key: str
    asking: Asking
    condition: Condition
    rollout: Rollout
    overviews: list[Image.Image] | None
    last: bool


class EvaluationWork:
    """Makes the rollouts of items.

    Args:
        engine: what writes the turns.
        crops: how crops are cut; each condition puts in its own source.
        settings: how turns are written.
    """

    def __init__(self, engine: Engine, crops: CropSettings, settings: RolloutSettings) -> None:
        self._engine, self._crops, self._settings = engine, crops, settings

    def __call__(self, items: Iterator[tuple[str, Item]]) -> Iterator[Done | Failure]:
        """Rollouts as they end. While the engine works, threads decode and shrink the pictures to come."""
        threads = ThreadPoolExecutor(_RENDERERS, "overviews")
        desk = _Desk(items, self._crops, self._settings.batch_size, threads)
        try:
            for job, outcome in stream_rollouts(
                self._engine, desk.next_job, self._settings, on_first_turn=desk.take_first_turn
            ):
                yield from desk.take(job, outcome)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


@dataclass(eq=False)
class _Open:
    """An item in hand. `pictures` hold its pixels, so that nothing is decoded or shrunk twice."""

    key: str
    left: int
    pictures: Future[list[Image.Image]]
    failed: bool = False
    shown: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class _Place:
    """What a job is about."""

    item: _Open
    asking: Asking
    condition: Condition


class _Desk:
    """Turns items into jobs, and ended jobs into what the item has of them."""

    def __init__(
        self,
        items: Iterator[tuple[str, Item]],
        crops: CropSettings,
        ahead: int,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._items, self._crops, self._ahead, self._threads = items, crops, ahead, threads
        self._more = True
        self._waiting: deque[Job] = deque()
        self._places: dict[Job, _Place] = {}

    def next_job(self) -> Job | None:
        """The next job; items are opened one batch ahead."""
        while self._more and len(self._waiting) <= self._ahead:
            pair = next(self._items, None)
            self._more = pair is not None
            if pair is not None:
                self._open(*pair)
        return self._waiting.popleft() if self._waiting else None

    def _open(self, key: str, askings: Item) -> None:
        rows = [asking.question.row for asking in askings]
        shown = dict.fromkeys(picture for row in rows for picture in row.pictures)
        item = _Open(
            key,
            sum(len(asking.conditions) for asking in askings),
            self._threads.submit(_render, list(shown)),
        )
        for asking in askings:
            waits = "predicted" in asking.conditions
            for condition in asking.conditions:
                if not (waits and begins_as_predicted(condition)):
                    self._waiting.append(self._job(item, asking, condition, asking.first_turn))

    def _job(
        self, item: _Open, asking: Asking, condition: Condition, first_turn: Sequence[int] | None
    ) -> Job:
        job = Job(
            asking.question.row,
            crops_under(condition, self._crops),
            tools=condition != "no_tool",
            sample=asking.sample,
            first_turn=first_turn if begins_as_predicted(condition) else None,
        )
        self._places[job] = _Place(item, asking, condition)
        return job

    def take_first_turn(self, job: Job, turn: list[int]) -> None:
        """Let the jobs that wait for this turn go first: their picture is at hand."""
        item, asking = self._places[job].item, self._places[job].asking
        if self._places[job].condition == "predicted":
            jobs = [
                self._job(item, asking, condition, turn)
                for condition in asking.conditions
                if begins_as_predicted(condition)
            ]
            self._waiting.extendleft(reversed(jobs))

    def take(self, job: Job, outcome: Rollout | Exception) -> Iterator[Done | Failure]:
        """What an ended job means for its item. An item is given up with its first failure."""
        place = self._places.pop(job)
        item, asking = place.item, place.asking
        if item.failed:
            return
        if isinstance(outcome, Exception):
            item.failed = True
            self._waiting = deque(each for each in self._waiting if self._places[each].item is not item)
            yield Failure((item.key,), f"{item.key}: {outcome}")
            return
        item.left -= 1
        overviews = None
        if asking.needs_overview and id(asking) not in item.shown:
            item.shown.add(id(asking))
            overviews = [
                load_shown(picture.image, picture.shown_size)
                for picture in outcome.row.pictures
                if picture.shown_size is not None
            ]
        yield Done(item.key, asking, place.condition, outcome, overviews, item.left == 0)


def _render(pictures: Iterable[Picture]) -> list[Image.Image]:
    found = []
    for picture in pictures:
        found.append(load_original(picture.image))
        if picture.shown_size is not None:
            found.append(load_shown(picture.image, picture.shown_size))
    return found
