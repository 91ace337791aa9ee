"""Work that takes longer than a page waits for an answer: done beside the server, one piece at a time."""

import threading
from collections.abc import Callable

from lfpc_trl.errors import UserError, one_line


class Background:
    """One piece of work at a time, in a thread, and why the last one failed.

    Attributes:
        busy: whether it is at work.
        problem: why the last piece of work failed, in one line; None where it did not.
        lock: held while these two change. Who holds it sees them as they belong together.
    """

    def __init__(self) -> None:
        self.busy = False
        self.problem: str | None = None
        self.lock = threading.Lock()

    def start(self, work: Callable[[], object], begin: Callable[[], object] = lambda: None) -> bool:
        """Start a piece of work, unless another one is under way.

        Args:
            work: the work. Whatever it raises becomes `problem`.
            begin: called before it, under the lock: what belongs to the start of this piece of work.

        Returns:
            Whether it was started.
        """
        with self.lock:
            if self.busy:
                return False
            self.busy, self.problem = True, None
            begin()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()
        return True

    def _run(self, work: Callable[[], object]) -> None:
        problem = None
        try:
            work()
        except Exception as error:  # whatever it is, the page says it
            problem = " ".join(str(error).split()) if isinstance(error, UserError) else one_line(error)
        with self.lock:
            self.busy, self.problem = False, problem
