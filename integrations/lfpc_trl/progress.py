"""How far long work is and how long it will take, for people."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

_LOG_SECONDS = 30.0
_TERMINAL_SECONDS = 0.2


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> [duration(seconds) for seconds in (42, 160, 4000, 100_000)]
        ['42 s', '3 min', '1 h 7 min', '27 h 47 min']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


_QUIET = "LFPC_QUIET"
"""Set in the environment, so that the processes that a command starts are quiet, too."""


def is_quiet() -> bool:
    """Whether nobody wants to be told how far work is."""
    return _QUIET in os.environ


@contextlib.contextmanager
def quiet(wanted: bool) -> Iterator[None]:
    """Tell nothing of how far work is, if that is wanted."""
    before = os.environ.get(_QUIET)
    if wanted:
        os.environ[_QUIET] = "1"
    try:
        yield
    finally:
        if wanted and before is None:
            os.environ.pop(_QUIET, None)


def rate(steps: int, seconds: float) -> str:
    """A speed as people say it.

    Example:
        >>> rate(25, 10.0), rate(3, 90.0)
        ('2.5 a second', '2.0 a minute')
    """
    each = steps / max(seconds, 1e-9)
    return f"{each:,.1f} a second" if each >= 1 else f"{each * 60:.1f} a minute"


class Pace:
    """How fast work goes, and how long the rest will take.

    Args:
        total: steps of the whole work; None where it is not known.
        done: steps that were done before; they say nothing about the speed.
        clock: seconds, for tests.
    """

    def __init__(
        self, total: int | None, done: int = 0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self._before = total, done
        self._clock, self._start = clock, clock()

    def begin(self) -> None:
        """The work begins now."""
        self._start = self._clock()

    def text(self, done: int) -> str:
        """The end of a line about so many steps: speed and time, where they are known and more is to come."""
        steps = done - self._before
        if steps <= 0 or (self.total is not None and done >= self.total):
            return ""
        seconds = self._clock() - self._start
        text = f", {rate(steps, seconds)}"
        if self.total is not None:
            text += f", about {duration(seconds * (self.total - done) / steps)} left"
        return text


class Progress:
    """A line that is rewritten in a terminal; elsewhere, such as in a log file, a new line now and then.

    It says how far the work is, how fast it goes and how long it will take; with `--quiet` nothing.

    Args:
        total: steps of the whole work; None where it is not known.
        done: steps that were done before; they say nothing about the speed.
        stream: where to; standard error unless given.
        clock: seconds, for tests.
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
        """The work begins now; the start of an engine, which came before, tells nothing of its speed."""
        self._pace.begin()

    def show(self, done: int, text: str) -> None:
        """Say `text`, speed and the time that is left, unless the last line is fresh and more is to come."""
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
        """The work is over, which only a known total says by itself."""
        if self._terminal and self._total is None and self._width:
            print(file=self._stream, flush=True)
