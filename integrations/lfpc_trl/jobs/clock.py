"""The total time of a job over all its interrupted and resumed runs."""

import os
import time
from pathlib import Path

from lfpc_trl.files import write_atomic

_EVERY = 5.0
"""Seconds between two writes; a kill loses at most this much time. Our choice."""
_SUFFIX = ".seconds"


class Clock:
    """Measures the seconds of this run and adds those of earlier runs.

    Args:
        folder: where each run keeps a file with its seconds; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start = self._written = time.monotonic()
        self._file = folder / f"{time.time_ns()}-{os.getpid()}{_SUFFIX}"

    def tick(self) -> None:
        """Write the time if the last write is long enough ago; call this often."""
        if time.monotonic() - self._written >= _EVERY:
            self.note()

    def note(self) -> None:
        """Write the seconds of this run so far."""
        self._written = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file, f"{self._written - self._start:.3f}\n")

    def total(self) -> float:
        """Seconds of this run and of all other runs with a file in the folder."""
        seconds = time.monotonic() - self._start
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if path != self._file and not path.name.startswith("."):
                seconds += _seconds(path)
        return seconds


def _seconds(path: Path) -> float:
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0
