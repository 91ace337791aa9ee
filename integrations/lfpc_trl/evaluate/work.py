"""The rollouts of an evaluation, as work that can be divided among processes.

A work item is a picture with all tasks about it, so each original is decoded once. Its rollouts under all
conditions share batches with those of other items. A rollout that reuses the first turn of another one starts
as soon as that turn is known.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from lfpc_trl.data.rows import Picture
from lfpc_trl.evaluate.conditions import Condition, crop_settings_for, reuses_first_turn
from lfpc_trl.evaluate.questions import Question
from lfpc_trl.jobs.workers import Failure
from lfpc_trl.models.engines import Engine
from lfpc_trl.pictures.originals import load_original, load_shown
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import ChatEngine, Job, Rollout, RolloutSettings, Turn, stream_rollouts

_RENDERERS = 4
"""Threads that decode and downscale pictures while the engine works."""


@dataclass(frozen=True)
class Task:
    """One sample of a question at one shown size: a rollout under each condition.

    Attributes:
        benchmark: name of the benchmark.
        question: the question; its row has a `shown_size`.
        conditions: the conditions to generate rollouts for.
        sample: index of the sample.
        first_turn: first turn of the `predicted` rollout, where it is known and `predicted` is not among
            `conditions`.
        needs_overview: whether the first finished rollout must return the overviews.
    """

    benchmark: str
    question: Question
    conditions: tuple[Condition, ...]
    sample: int = 0
    first_turn: tuple[Any, ...] | None = None
    needs_overview: bool = False


PictureTasks = tuple[Task, ...]
"""All tasks about one picture, or about the same set of pictures. Keyed by their paths (`item_key`)."""


@dataclass(frozen=True)
class Done:
    """A finished rollout.

    Attributes:
        key: key of its work item.
        task: the task it belongs to.
        condition: the condition it was generated under.
        rollout: what the model did.
        overviews: the pictures as shown to the model, if this rollout returns them.
        last: whether this is the last rollout of its work item.
    """

    key: str
    task: Task
    condition: Condition
    rollout: Rollout
    overviews: list[Image.Image] | None
    last: bool


class EvaluationWork:
    """Generates the rollouts of work items.

    Args:
        engine: generates the turns.
        crops: how crops are cut; each condition sets its own `crop_source`.
        settings: how turns are generated.
    """

    def __init__(self, engine: Engine | ChatEngine, crops: CropSettings, settings: RolloutSettings) -> None:
        self._engine, self._crops, self._settings = engine, crops, settings

    def __call__(self, items: Iterator[tuple[str, PictureTasks]]) -> Iterator[Done | Failure]:
        """Yield rollouts as they finish; meanwhile, threads decode and downscale the next pictures."""
        threads = ThreadPoolExecutor(_RENDERERS, "overviews")
        scheduler = _Scheduler(items, self._crops, self._settings.batch_size, threads)
        try:
            for job, outcome in stream_rollouts(
                self._engine, scheduler.next_job, self._settings, on_first_turn=scheduler.take_first_turn
            ):
                yield from scheduler.take(job, outcome)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


@dataclass(eq=False)
class _OpenPicture:
    """A work item in progress.

    Attributes:
        key: key of the work item.
        remaining: number of unfinished rollouts.
        pictures: its pixels, held so that nothing is decoded or downscaled twice.
        failed: whether a rollout failed.
        returned: ids of the tasks whose overviews were returned.
    """

    key: str
    remaining: int
    pictures: Future[list[Image.Image]]
    failed: bool = False
    returned: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class _JobOrigin:
    """Where a job comes from: its work item, task and condition."""

    item: _OpenPicture
    task: Task
    condition: Condition


class _Scheduler:
    """Turns work items into jobs, and finished jobs into results."""

    def __init__(
        self,
        items: Iterator[tuple[str, PictureTasks]],
        crops: CropSettings,
        ahead: int,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._items, self._crops, self._ahead, self._threads = items, crops, ahead, threads
        self._more = True
        self._waiting: deque[Job] = deque()
        self._origins: dict[Job, _JobOrigin] = {}

    def next_job(self) -> Job | None:
        """Return the next job; work items are opened one batch ahead."""
        while self._more and len(self._waiting) <= self._ahead:
            key_and_tasks = next(self._items, None)
            self._more = key_and_tasks is not None
            if key_and_tasks is not None:
                self._open(*key_and_tasks)
        return self._waiting.popleft() if self._waiting else None

    def _open(self, key: str, tasks: PictureTasks) -> None:
        rows = [task.question.row for task in tasks]
        pictures = dict.fromkeys(picture for row in rows for picture in row.pictures)
        item = _OpenPicture(
            key,
            sum(len(task.conditions) for task in tasks),
            self._threads.submit(_render, list(pictures)),
        )
        for task in tasks:
            needs_first_turn = "predicted" in task.conditions
            for condition in task.conditions:
                if not (needs_first_turn and reuses_first_turn(condition)):
                    self._waiting.append(self._job(item, task, condition, task.first_turn))

    def _job(
        self, item: _OpenPicture, task: Task, condition: Condition, first_turn: Sequence[Any] | None
    ) -> Job:
        job = Job(
            task.question.row,
            crop_settings_for(condition, self._crops),
            tools=condition != "no_tool",
            sample=task.sample,
            first_turn=first_turn if reuses_first_turn(condition) else None,
        )
        self._origins[job] = _JobOrigin(item, task, condition)
        return job

    def take_first_turn(self, job: Job, turn: Turn) -> None:
        """Queue the jobs that wait for this turn at the front: their picture is in memory."""
        item, task = self._origins[job].item, self._origins[job].task
        if self._origins[job].condition == "predicted":
            jobs = [
                self._job(item, task, condition, turn)
                for condition in task.conditions
                if reuses_first_turn(condition)
            ]
            self._waiting.extendleft(reversed(jobs))

    def take(self, job: Job, outcome: Rollout | Exception) -> Iterator[Done | Failure]:
        """Yield the result of a finished job. The first failure drops the rest of its work item."""
        origin = self._origins.pop(job)
        item, task = origin.item, origin.task
        if item.failed:
            return
        if isinstance(outcome, Exception):
            item.failed = True
            self._waiting = deque(each for each in self._waiting if self._origins[each].item is not item)
            yield Failure((item.key,), f"{item.key}: {outcome}")
            return
        item.remaining -= 1
        overviews = None
        if task.needs_overview and id(task) not in item.returned:
            item.returned.add(id(task))
            overviews = [
                load_shown(picture.image, picture.shown_size)
                for picture in outcome.row.pictures
                if picture.shown_size is not None
            ]
        yield Done(item.key, task, origin.condition, outcome, overviews, item.remaining == 0)


def _render(pictures: Iterable[Picture]) -> list[Image.Image]:
    images = []
    for picture in pictures:
        images.append(load_original(picture.image))
        if picture.shown_size is not None:
            images.append(load_shown(picture.image, picture.shown_size))
    return images
