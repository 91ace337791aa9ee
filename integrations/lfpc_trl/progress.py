"""How far long work is and how long it will take, for people."""

import sys
import time
from collections.abc import Callable
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


class Progress:
    """A line that is rewritten in a terminal; elsewhere, such as in a log file, a new line now and then.

    Args:
        total: steps of the whole work.
        done: steps that were done before; they say nothing about the speed.
        stream: where to; standard error unless given.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._before = total, done
        self._stream = sys.stderr if stream is None else stream
        self._clock, self._start = clock, clock()
        self._terminal = self._stream.isatty()
        self._shown_at = self._start
        self._width = 0

    def begin(self) -> None:
        """The work begins now; the start of an engine, which came before, tells nothing of its speed."""
        self._start = self._clock()

    def show(self, done: int, text: str) -> None:
        """Say `text` and the time that is left, unless the last line is fresh and there is more to come."""
        now = self._clock()
        pause = _TERMINAL_SECONDS if self._terminal else _LOG_SECONDS
        if done < self._total and now - self._shown_at < pause:
            return
        self._shown_at = now
        steps = done - self._before
        if done < self._total and steps > 0:
            left = (now - self._start) * (self._total - done) / steps
            text = f"{text}, about {duration(left)} left"
        if self._terminal:
            end = "\n" if done >= self._total else ""
            print(f"\r{text:<{self._width}}", end=end, file=self._stream, flush=True)
            self._width = len(text)
        else:
            print(text, file=self._stream, flush=True)
