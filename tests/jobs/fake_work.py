"""Work without a model, for tests of those who divide it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfpc_trl.errors import UserError
from lfpc_trl.jobs.workers import Failure, Outcome, Piece


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers, one at a time; `how` it fails at the key `bad`."""

    bad: str = ""
    how: str = "raise"
    pieces: int = 1
    pause: float = 0.0

    def __call__(self) -> Any:
        if self.how == "user":
            raise UserError("no such model")
        return self.work

    def work(self, items: Iterator[tuple[str, int]]) -> Iterator[Outcome]:
        for key, value in items:
            time.sleep(self.pause)
            for number in range(self.pieces):
                if key == self.bad and number == self.pieces - 1:
                    yield from self.fail(key)
                    break
                record = {"twice": 2 * value, "pid": os.getpid(), "said": os.environ.get("SAID")}
                yield Piece(key, record, number == self.pieces - 1)

    def fail(self, key: str) -> Iterator[Outcome]:
        if self.how == "raise":
            raise RuntimeError("two\nlines")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            sys.exit(3)
        yield Failure((key,), "this one only")


@dataclass(frozen=True)
class WithChild:
    """Starts a process of its own, as engines do, says its id and goes on for ever."""

    def __call__(self) -> Any:
        return self.work

    def work(self, items: Iterator[tuple[str, int]]) -> Iterator[Outcome]:
        for key, _ in items:
            child = subprocess.Popen(["sleep", "600"])
            yield Piece(key, {"pids": [os.getpid(), child.pid]}, last=False)
            time.sleep(600)


@dataclass(frozen=True)
class OneByOne:
    """Goes on to the next item when a file is there."""

    file: Path

    def __call__(self) -> Any:
        return self.work

    def work(self, items: Iterator[tuple[str, int]]) -> Iterator[Outcome]:
        for key, _ in items:
            yield Piece(key, {}, last=True)
            deadline = time.monotonic() + 60
            while not self.file.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert self.file.exists(), "nobody read the piece"
