"""How long work took in all, over every run that was stopped and went on."""

import os
import time
from pathlib import Path

from lfpc_trl.files import write_whole

_EVERY = 5.0
"""Seconds between two notes: a kill costs at most so many of them. Our choice."""
_SUFFIX = ".seconds"


class Clock:
    """Counts the seconds of this run, and knows those of the runs before it.

    Args:
        folder: where every run keeps a note of its own; made by the first one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start = self._noted = time.monotonic()
        self._note = folder / f"{time.time_ns()}-{os.getpid()}{_SUFFIX}"

    def tick(self) -> None:
        """Work goes on: note the time now and then."""
        if time.monotonic() - self._noted >= _EVERY:
            self.note()

    def note(self) -> None:
        """Write down how long this run has taken so far."""
        self._noted = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._note, f"{self._noted - self._start:.3f}\n")

    def total(self) -> float:
        """Seconds of this run and of all others that left a note in the folder."""
        seconds = time.monotonic() - self._start
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if path != self._note and not path.name.startswith("."):
                seconds += _seconds(path)
        return seconds


def _seconds(path: Path) -> float:
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
