"""Progress of long jobs: a status line with speed and remaining time."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

_LOG_SECONDS = 30.0
_TERMINAL_SECONDS = 0.2


def duration(seconds: float) -> str:
    """Format a duration.

    Example:
        >>> [duration(seconds) for seconds in (42, 160, 4000, 100_000)]
        ['42 s', '3 min', '1 h 7 min', '27 h 47 min']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


_QUIET = "LFPC_QUIET"
"""An environment variable, so that processes started by a command are quiet, too."""


def is_quiet() -> bool:
    """Whether progress lines are off."""
    return _QUIET in os.environ


@contextlib.contextmanager
def quiet(enabled: bool) -> Iterator[None]:
    """Turn progress lines off, if `enabled`."""
    before = os.environ.get(_QUIET)
    if enabled:
        os.environ[_QUIET] = "1"
    try:
        yield
    finally:
        if enabled and before is None:
            os.environ.pop(_QUIET, None)


def rate(steps: int, seconds: float) -> str:
    """Format a speed.

    Example:
        >>> rate(25, 10.0), rate(3, 90.0)
        ('2.5 a second', '2.0 a minute')
    """
    each = steps / max(seconds, 1e-9)
    return f"{each:,.1f} a second" if each >= 1 else f"{each * 60:.1f} a minute"


class Pace:
    """The speed of a job and its remaining time.

    Args:
        total: steps of the whole job; None if unknown.
        done: steps already done at the start; they do not count for the speed.
        clock: returns seconds, for tests.
    """

    def __init__(
        self, total: int | None, done: int = 0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self._before = total, done
        self._clock, self._start = clock, clock()

    def begin(self) -> None:
        """Restart the clock."""
        self._start = self._clock()

    def text(self, done: int) -> str:
        """The end of a status line: speed and remaining time, if known and the job is not done."""
        steps = done - self._before
        if steps <= 0 or (self.total is not None and done >= self.total):
            return ""
        seconds = self._clock() - self._start
        text = f", {rate(steps, seconds)}"
        if self.total is not None:
            text += f", about {duration(seconds * (self.total - done) / steps)} left"
        return text


class Progress:
    """A status line, rewritten in a terminal; elsewhere, such as in a log file, a new line now and then.

    It shows progress, speed and remaining time; with `--quiet` nothing.

    Args:
        total: steps of the whole job; None if unknown.
        done: steps already done at the start; they do not count for the speed.
        stream: the output; default: standard error.
        clock: returns seconds, for tests.
    """

    def __init__(
        self,
        total: int | None,
        done: int = 0,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pace = Pace(total, done, clock=clock)
        self._total, self._clock = total, clock
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._shown_at = clock()
        self._width = 0

    def begin(self) -> None:
        """Restart the clock: time before it, such as the start of an engine, does not count."""
        self._pace.begin()

    def show(self, done: int, text: str) -> None:
        """Print `text`, speed and remaining time, unless the last line is recent and the work is not done."""
        if is_quiet():
            return
        now = self._clock()
        pause = _TERMINAL_SECONDS if self._terminal else _LOG_SECONDS
        over = self._total is not None and done >= self._total
        if not over and now - self._shown_at < pause:
            return
        self._shown_at = now
        text += self._pace.text(done)
        if self._terminal:
            end = "\n" if over else ""
            print(f"\r{text:<{self._width}}", end=end, file=self._stream, flush=True)
            self._width = len(text)
        else:
            print(text, file=self._stream, flush=True)

    def end(self) -> None:
        """End the status line; needed only if the total is unknown."""
        if self._terminal and self._total is None and self._width:
            print(file=self._stream, flush=True)
