"""Workers: in this process, in several on this machine, or in Ray Data actors.

All three run the same `Work`: they give it items on request and yield what it finishes, piece by piece, in
any order. The reader of the pieces saves them, so finished work is not lost when a process dies. Nothing here
depends on what the work is.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from lfpc_trl.errors import UserError, how_to_install, one_line


class Piece(NamedTuple):
    """A finished piece of an item.

    Attributes:
        key: the item's key.
        record: the result, plain JSON values.
        last: whether this piece completes the item.
    """

    key: str
    record: dict[str, Any]
    last: bool


class Failure(NamedTuple):
    """Items that could not be finished; their earlier pieces are still valid.

    Attributes:
        keys: the items' keys.
        reason: one line.
    """

    keys: tuple[str, ...]
    reason: str


Outcome = Piece | Failure
Outcomes = Generator[Outcome, None, None]
Work = Callable[[Iterator[tuple[str, Any]]], Outcomes]
"""Takes (key, item) pairs, as many at a time as it can process together, and yields what it finishes."""
MakeWork = Callable[[], Work]
"""Creates the work of one process, for example by loading a model. It is pickled."""


def _settle(outcome: Outcome, pending: dict[str, Any]) -> None:
    """Remove finished or failed items from a worker's pending ones."""
    if isinstance(outcome, Failure):
        for key in outcome.keys:
            pending.pop(key, None)
    elif outcome.last:
        pending.pop(outcome.key, None)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _nothing() -> None:
    """The default callback."""


def run_here(make: MakeWork, items: Mapping[str, Any], begun: Callable[[], object] = _nothing) -> Outcomes:
    """Run the work in this process.

    Args:
        make: called once.
        items: keyed items.
        begun: called when the work has been created and starts.
    """
    work = make()
    begun()
    yield from work(iter(items.items()))


# --- processes ---------------------------------------------------------------------------------------


class _Request(NamedTuple):
    """A worker requests an item."""


class _End(NamedTuple):
    """A worker has ended. `problem` is one line if it failed; `user` means that the user can fix it."""

    problem: str | None = None
    user: bool = False


def run_processes(
    make: MakeWork,
    items: Mapping[str, Any],
    environments: Sequence[Mapping[str, str]],
    begun: Callable[[], object] = _nothing,
) -> Outcomes:
    """Run the work in new processes, one for each environment.

    A worker that fails or dies does not affect the others: its unfinished items become a `Failure`, and the
    other workers do the rest. All workers end when the iterator is closed, on any exception here, and when
    this process is killed.

    Args:
        make: called once in each worker.
        items: keyed items, handed out in order as workers request them.
        environments: variables to set in each worker before it imports anything, such as its GPU.
        begun: called when the first worker has created its work and starts.

    Raises:
        UserError: `make` raised one.
    """
    waiting = deque(items.items())
    has_begun = False
    workers: list[_Worker] = []
    reason = "no worker started"
    try:
        workers.extend(_Worker(make, environment) for environment in environments)
        while running := [worker for worker in workers if not worker.over]:
            ready = wait([handle for worker in running for handle in (worker.pipe, worker.process.sentinel)])
            for worker in running:
                if worker.pipe not in ready and worker.process.sentinel not in ready:
                    continue
                message = worker.receive()
                if isinstance(message, _Request):
                    if not has_begun:
                        has_begun = True
                        begun()
                    worker.hand(waiting)
                elif isinstance(message, _End):
                    worker.over = True
                    if message.user:
                        raise UserError(message.problem)
                    if message.problem is not None:
                        reason = message.problem
                        yield Failure(tuple(worker.items), reason)
                else:
                    _settle(message, worker.items)
                    yield message
        if waiting:
            yield Failure(tuple(key for key, _ in waiting), f"no worker is left: {reason}")
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process and its pending items, by key."""

    def __init__(self, make: MakeWork, environment: Mapping[str, str]) -> None:
        # Not forked: CUDA does not survive a fork, and a new process reads its environment from the start.
        context = multiprocessing.get_context("spawn")
        self.pipe, child_pipe = context.Pipe()
        # Pickled here so that it is unpickled, which imports torch, only after the environment is set.
        arguments = (pickle.dumps(make), dict(environment), child_pipe)
        # Not a daemon: daemons must not start processes, and engines do.
        self.process = context.Process(target=_main, args=arguments, daemon=False)
        self.process.start()
        child_pipe.close()
        self.items: dict[str, Any] = {}
        self.over = False

    def receive(self) -> Any:
        """The next message; an `_End` if the process is dead and all its messages have been read."""
        try:
            return self.pipe.recv() if self.pipe.poll() else _End(self._death())
        except (EOFError, OSError):
            return _End(self._death())

    def _death(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"worker process {self.process.pid} died, {how}"

    def hand(self, waiting: deque[tuple[str, Any]]) -> None:
        """Send the worker the next item, or None if there are no more."""
        item = waiting.popleft() if waiting else None
        if item is not None:
            self.items[item[0]] = item[1]
        with suppress(OSError):  # the process is dead; its sentinel reports that
            self.pipe.send(item)

    def end(self) -> None:
        """End the process and those that it started."""
        self.pipe.close()
        if self.over:
            self.process.join(timeout=10)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.is_alive():
                with suppress(ProcessLookupError):  # it is not yet the leader of its process group
                    os.killpg(self.process.pid or 0, number)
                self.process.join(timeout=10)
        self.process.kill()
        self.process.join()


def _main(make: bytes, environment: Mapping[str, str], pipe: Connection) -> None:
    """The main function of a worker process."""
    # A process group of its own: Ctrl-C reaches only the parent, which ends this process and its children.
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)

    def items() -> Iterator[tuple[str, Any]]:
        while True:
            pipe.send(_Request())
            item = pipe.recv()
            if item is None:
                return
            yield item

    try:
        for outcome in pickle.loads(make)()(items()):
            pipe.send(outcome)
        end = _End()
    except UserError as error:
        end = _End(str(error), user=True)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        end = _End(_one_line(error))
    with suppress(OSError):
        pipe.send(end)


def _end_with_parent() -> None:
    """End this process group when the parent ends: a killed parent cannot do it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


# --- Ray Data ----------------------------------------------------------------------------------------


def run_on_ray(make: MakeWork, items: Mapping[str, Any], *, workers: int, at_a_time: int) -> Outcomes:
    """Run the work in Ray Data actors, on the cluster that `ray.init` finds or on this machine.

    Ray places the actors where resources are free, each with a GPU if the cluster has any, and restarts dead
    ones; their pending items are then repeated.

    Args:
        make: called once in each actor; package, model and pictures must be available on the actors' nodes.
        items: keyed items.
        workers: number of actors.
        at_a_time: items per call of an actor.

    Raises:
        UserError: Ray is not installed, or `make` raised one.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError(f"ray[data] is not installed; {how_to_install('ray')}") from None
    if not ray.is_initialized():
        ray.init()
    context = ray.data.DataContext.get_current()
    block_size = context.target_max_block_size
    # Ray buffers 128 MB before it passes anything on. With this, every piece is a block and arrives at once.
    context.target_max_block_size = 1
    try:
        # Pickled, so that Arrow can store any item.
        rows = ray.data.from_items([{"item": pickle.dumps(pair)} for pair in items.items()])
        done = rows.map_batches(
            _RayWork,
            fn_constructor_args=(pickle.dumps(make),),
            batch_size=at_a_time,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=1 if ray.cluster_resources().get("GPU") else 0,
        )
        for block in done.iter_batches(batch_size=None, prefetch_batches=0):
            for pickled in block["outcome"]:
                outcome = pickle.loads(pickled)
                if isinstance(outcome, _End):
                    raise UserError(outcome.problem)
                yield outcome
    finally:
        context.target_max_block_size = block_size


class _RayWork:
    """A Ray Data actor. An exception would end the whole run, so it is turned into a `Failure`."""

    def __init__(self, make: bytes) -> None:
        self.make = make
        self.work: Work | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        pending = dict(pickle.loads(item) for item in batch["item"])
        for outcome in self.outcomes(pending):
            yield {"outcome": [pickle.dumps(outcome)]}

    def outcomes(self, pending: dict[str, Any]) -> Iterator[Outcome | _End]:
        try:
            if self.work is None:
                self.work = pickle.loads(self.make)()
            for outcome in self.work(iter(list(pending.items()))):
                _settle(outcome, pending)
                yield outcome
        except UserError as error:
            yield _End(str(error), user=True)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self.work = None  # created again for the next call: the engine may be permanently broken
            yield Failure(tuple(pending), _one_line(error))
