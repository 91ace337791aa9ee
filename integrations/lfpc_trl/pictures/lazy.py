"""Pictures that are made when their pixels are asked for, and travel as the recipe they are made from.

A trainer copies and sends its batches around, pictures included. A `LazyImage` is a Pillow image to all who
use it, but it pickles as a path, a box and a size, and its copy is itself. Its pixels come from the cache of
the process, made in the background as soon as it is announced with `start`.
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
from lfpc_trl.pictures.inside import holder_of
from lfpc_trl.pictures.originals import load_original, load_shown
from lfpc_trl.pictures.sizes import Size, show

MAX_WORKERS = 8
"""Threads that read and resize, at most. Our choice: each may hold an original of 100 MB and more."""


class Part(NamedTuple):
    """A picture, or the part `box` of it, at the size in which the model sees it.

    Attributes:
        path: the original.
        file_bytes: `file_bytes` of the original when the picture was announced.
        size: (width, height) in pixels.
        box: pixels of the original; None for the whole.
    """

    path: str
    file_bytes: int
    size: Size
    box: PixelBox | None = None

    def make(self) -> Image.Image:
        """The pixels.

        Raises:
            OSError: the file is missing, is no picture, or is not the one that was announced.
        """
        path = Path(self.path)
        found = file_bytes(path)
        if found != self.file_bytes:
            raise OSError(f"{path}: changed during the run, was {self.file_bytes} bytes and is {found}")
        if self.box is None:
            return load_shown(path, self.size)
        return show(load_original(path).crop(self.box), self.size)


def file_bytes(path: Path) -> int:
    """Length of the file that a picture is, or is inside.

    Raises:
        OSError: there is none.
    """
    return holder_of(path).stat().st_size


class Noise(NamedTuple):
    """Random noise, the same in every process.

    Attributes:
        seed: whole numbers.
        size: (width, height) in pixels.
    """

    seed: tuple[int, ...]
    size: Size

    def make(self) -> Image.Image:
        """The pixels."""
        width, height = self.size
        source = np.random.default_rng(self.seed)
        return Image.fromarray(source.integers(0, 256, (height, width, 3), dtype=np.uint8))


class LazyImage(Image.Image):
    """An RGB picture known by its recipe; read only, because many hold the same one.

    What Pillow makes from it (`copy`, `convert`, `resize`, `crop`) is an ordinary picture.

    Attributes:
        recipe: how its pixels are made; equal recipes give equal pixels.
    """

    def __init__(self, recipe: Part | Noise) -> None:
        super().__init__()
        self._mode, self._size, self.readonly = "RGB", recipe.size, 1
        self.recipe = recipe
        self._announced: Future[Image.Image] | None = None
        self._process = 0

    def start(self) -> Self:
        """Have the pixels made in the background. A failure is raised where the pixels are used."""
        if isinstance(self.recipe, Part):
            self._announced = _WORKERS.submit(self.recipe.path, self.recipe.make)
            self._process = os.getpid()
        return self

    @property
    def im(self) -> Any:
        """Pillow's handle of the pixels."""
        if self._im is None:
            announced = self._announced
            if announced is None or self._process != os.getpid():  # its thread is elsewhere
                self._im = self.recipe.make().im
            else:
                self._im = announced.result().im
            self._announced = None
        return super().im

    @im.setter
    def im(self, _: object) -> NoReturn:
        raise TypeError("a shared picture cannot be changed, change a copy()")

    def load(self) -> Any:
        """As Pillow's."""
        return self.im.pixel_access(self.readonly)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """As Pillow's, which in some versions writes into a picture before it saves it."""
        self.copy().save(*args, **kwargs)

    def __reduce__(self) -> tuple[type[Self], tuple[Part | Noise]]:
        return type(self), (self.recipe,)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _Workers:
    """Jobs in threads. Those about one file run one after another: none waits for another's decode."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget all jobs: so in a forked process, where the threads do not exist."""
        self._waiting: dict[str, deque[tuple[Future[Image.Image], Callable[[], Image.Image]]]] = {}
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, path: str, job: Callable[[], Image.Image]) -> Future[Image.Image]:
        """Queue a job about a file."""
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
    """Cores this process may use; one of several on a machine is often bound to a few."""
    bound = getattr(os, "sched_getaffinity", None)
    return len(bound(0)) if bound else os.cpu_count() or 1


_WORKERS = _Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WORKERS.start_anew)
