"""Work divided among processes: in this one, in several on this machine, or in actors of Ray Data.

The three do the same to the same `Work`: they hand it items as it asks for them and pass on what it finishes,
piece by piece, in any order. Whoever reads the pieces writes them down; so nothing that was finished is lost
when a process dies, and nothing here knows what the work is.
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
        key: the item's.
        record: what was found, plain JSON values.
        last: whether the item is done with it.
    """

    key: str
    record: dict[str, Any]
    last: bool


class Failure(NamedTuple):
    """Items that could not be finished; the pieces that came before stand.

    Attributes:
        keys: the items.
        reason: one line.
    """

    keys: tuple[str, ...]
    reason: str


Outcome = Piece | Failure
Outcomes = Generator[Outcome, None, None]
Work = Callable[[Iterator[tuple[str, Any]]], Outcomes]
"""Takes (key, item) pairs, as many at a time as it has room for, and yields what it finishes."""
MakeWork = Callable[[], Work]
"""Makes the work of one process, such as by loading a model. It is pickled."""


def _settle(outcome: Outcome, in_hand: dict[str, Any]) -> None:
    """Take what is finished, or failed, out of what a worker has in hand."""
    if isinstance(outcome, Failure):
        for key in outcome.keys:
            in_hand.pop(key, None)
    elif outcome.last:
        in_hand.pop(outcome.key, None)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


def _nothing() -> None:
    """Nobody wants to be told."""


def run_here(make: MakeWork, items: Mapping[str, Any], begun: Callable[[], object] = _nothing) -> Outcomes:
    """The work in this process.

    Args:
        make: called once.
        items: by their keys.
        begun: called when the work is made and begins.
    """
    work = make()
    begun()
    yield from work(iter(items.items()))


# --- processes ---------------------------------------------------------------------------------------


class _Request(NamedTuple):
    """A worker has room for an item."""


class _End(NamedTuple):
    """A worker is done, well or not. `problem` is a line, `user` says that the user can put it right."""

    problem: str | None = None
    user: bool = False


def run_processes(
    make: MakeWork,
    items: Mapping[str, Any],
    environments: Sequence[Mapping[str, str]],
    begun: Callable[[], object] = _nothing,
) -> Outcomes:
    """The work in fresh processes, one for each environment.

    A worker that fails or dies takes down no other: its unfinished items come out as a `Failure` and the rest
    is done by those that are left. All workers end when the iterator is closed, on any exception here, and
    when this process is killed.

    Args:
        make: called once in each worker.
        items: by their keys; handed out in order, to whoever has room.
        environments: variables to set in each worker before it imports anything, such as its GPU.
        begun: called when the first worker has made its work and begins.

    Raises:
        UserError: `make` raised one.
    """
    waiting = deque(items.items())
    has_begun = False
    workers: list[_Worker] = []
    reason = "no worker was started"
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
    """A process and, by key, the items that it has in hand."""

    def __init__(self, make: MakeWork, environment: Mapping[str, str]) -> None:
        # Not forked: CUDA does not survive a fork, and a fresh process reads its environment anew.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        # Pickled here, unpickled after the environment is set: it imports torch.
        arguments = (pickle.dumps(make), dict(environment), theirs)
        # No daemon: those may have no processes of their own, and engines do.
        self.process = context.Process(target=_main, args=arguments, daemon=False)
        self.process.start()
        theirs.close()
        self.items: dict[str, Any] = {}
        self.over = False

    def receive(self) -> Any:
        """The next message; an `_End` if the process is dead. Its last words come first."""
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
        """Give the worker the next item, or word that there is none."""
        item = waiting.popleft() if waiting else None
        if item is not None:
            self.items[item[0]] = item[1]
        with suppress(OSError):  # dead: its sentinel tells
            self.pipe.send(item)

    def end(self) -> None:
        """End the process and those that it started."""
        self.pipe.close()
        if self.over:
            self.process.join(timeout=10)
        for word in (signal.SIGTERM, signal.SIGKILL):
            if self.process.is_alive():
                with suppress(ProcessLookupError):  # it has not become the head of its group yet
                    os.killpg(self.process.pid or 0, word)
                self.process.join(timeout=10)
        self.process.kill()
        self.process.join()


def _main(make: bytes, environment: Mapping[str, str], pipe: Connection) -> None:
    """What a worker process does."""
    # A group of its own: Ctrl-C reaches the parent alone, which ends this process with all its children.
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
    """A parent that was killed cannot end its workers; they see it themselves."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


# --- Ray Data ----------------------------------------------------------------------------------------


def run_on_ray(make: MakeWork, items: Mapping[str, Any], *, workers: int, at_a_time: int) -> Outcomes:
    """The work in actors of Ray Data, on the cluster that `ray.init` finds or on this machine.

    Ray starts the actors where there is room, each with a GPU if the cluster has any, and starts a dead one
    again; what it had in hand is then done again.

    Args:
        make: called once in each actor; the package, the model and the pictures must be where the actors are.
        items: by their keys.
        workers: actors.
        at_a_time: items in one call of an actor.

    Raises:
        UserError: Ray is not installed, or `make` raised one.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError(f"ray[data] not installed; {how_to_install('ray')}") from None
    if not ray.is_initialized():
        ray.init()
    context = ray.data.DataContext.get_current()
    block_size = context.target_max_block_size
    # Ray gathers 128 MB before it passes anything on. So every piece is a block and arrives at once.
    context.target_max_block_size = 1
    try:
        # Arrow need not understand an item: each is a pickle.
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
    """What an actor of Ray Data does. An exception would end the whole run, so it becomes a `Failure`."""

    def __init__(self, make: bytes) -> None:
        self.make = make
        self.work: Work | None = None

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        in_hand = dict(pickle.loads(item) for item in batch["item"])
        for outcome in self.outcomes(in_hand):
            yield {"outcome": [pickle.dumps(outcome)]}

    def outcomes(self, in_hand: dict[str, Any]) -> Iterator[Outcome | _End]:
        try:
            if self.work is None:
                self.work = pickle.loads(self.make)()
            for outcome in self.work(iter(list(in_hand.items()))):
                _settle(outcome, in_hand)
                yield outcome
        except UserError as error:
            yield _End(str(error), user=True)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self.work = None  # made anew for the next call: an engine may be broken for good
            yield Failure(tuple(in_hand), _one_line(error))
