"""Lazy pictures: pixels are computed on first access, and pickling stores only how to compute them.

Trainers copy batches and send them between processes, pictures included. A `LazyImage` behaves like a Pillow
image, but it pickles as a path, a box and a size, and copying it returns itself. Its pixels come from the
cache of the process; `start` computes them in the background.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
from PIL import Image

from lfpc_trl.pictures.crops import PixelBox
from lfpc_trl.pictures.inside import container_file
from lfpc_trl.pictures.originals import load_original, load_shown
from lfpc_trl.pictures.sizes import Size, show

MAX_WORKERS = 8
"""Maximum number of threads that read and resize. Our choice: each may hold an original of over 100 MB."""


class Part(NamedTuple):
    """A picture, or the region `box` of it, at its shown size.

    Attributes:
        path: path of the original.
        file_bytes: `file_bytes` of the original when the picture was created.
        size: (width, height) in pixels.
        box: pixels of the original; None for the whole.
    """

    path: str
    file_bytes: int
    size: Size
    box: PixelBox | None = None

    def make(self) -> Image.Image:
        """Compute the pixels.

        Raises:
            OSError: the file is missing, is not a picture, or has changed.
        """
        path = Path(self.path)
        length = file_bytes(path)
        if length != self.file_bytes:
            raise OSError(f"{path}: changed during the run from {self.file_bytes} to {length} bytes")
        if self.box is None:
            return load_shown(path, self.size)
        return show(load_original(path).crop(self.box), self.size)


def file_bytes(path: Path) -> int:
    """Return the length of a picture's file, or of the file that holds it.

    Raises:
        OSError: the file does not exist.
    """
    return container_file(path).stat().st_size


class Noise(NamedTuple):
    """Random noise, the same in every process.

    Attributes:
        seed: integers.
        size: (width, height) in pixels.
    """

    seed: tuple[int, ...]
    size: Size

    def make(self) -> Image.Image:
        """Compute the pixels."""
        width, height = self.size
        source = np.random.default_rng(self.seed)
        return Image.fromarray(source.integers(0, 256, (height, width, 3), dtype=np.uint8))


class LazyImage(Image.Image):
    """An RGB picture defined by a recipe; read-only, because it is shared.

    `copy`, `convert`, `resize` and `crop` return ordinary Pillow images.

    Attributes:
        recipe: how to compute the pixels; equal recipes give equal pixels.
    """

    def __init__(self, recipe: Part | Noise) -> None:
        super().__init__()
        self._mode, self._size, self.readonly = "RGB", recipe.size, 1
        self.recipe = recipe
        self._future: Future[Image.Image] | None = None
        self._process = 0

    def start(self) -> Self:
        """Compute the pixels in the background. A failure is raised when the pixels are used."""
        if isinstance(self.recipe, Part):
            self._future = _WORKERS.submit(self.recipe.path, self.recipe.make)
            self._process = os.getpid()
        return self

    @property
    def im(self) -> Any:
        """Pillow's internal pixel object."""
        if self._im is None:
            future = self._future
            if future is None or self._process != os.getpid():  # the future is of another process
                self._im = self.recipe.make().im
            else:
                self._im = future.result().im
            self._future = None
        return super().im

    @im.setter
    def im(self, _: object) -> NoReturn:
        raise TypeError("a shared picture is read-only, modify a copy() of it")

    def load(self) -> Any:
        """Load the pixels, like Pillow's `load`."""
        return self.im.pixel_access(self.readonly)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save a copy: some versions of Pillow modify a picture before saving it."""
        self.copy().save(*args, **kwargs)

    def __reduce__(self) -> tuple[type[Self], tuple[Part | Noise]]:
        return type(self), (self.recipe,)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _Workers:
    """Runs jobs in threads; jobs on the same file run in sequence, so none waits for another's decode."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget all jobs; needed after a fork, because threads do not survive it."""
        self._waiting: dict[str, deque[tuple[Future[Image.Image], Callable[[], Image.Image]]]] = {}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, path: str, job: Callable[[], Image.Image]) -> Future[Image.Image]:
        """Queue a job on a file."""
        future: Future[Image.Image] = Future()
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(min(MAX_WORKERS, _cores()), "pictures")
            if path in self._waiting:
                self._waiting[path].append((future, job))
            else:
                self._waiting[path] = deque([(future, job)])
                self._threads.submit(self._work_on, path)
        return future

    def _work_on(self, path: str) -> None:
        while True:
            with self._lock:
                if not self._waiting[path]:
                    del self._waiting[path]
                    return
                future, job = self._waiting[path].popleft()
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


_WORKERS = _Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WORKERS.start_anew)
