"""A function of many items, in threads, with few of them waiting."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_WAITING = 256
"""Items that are taken before their results are: a pool's own `map` takes all of them at once. Our choice."""


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Each item with what the function makes of it, in their order.

    Worth it where most of the work leaves Python alone, such as decoding pictures. What the function raises
    is raised in the item's turn, and no further item is begun.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        under_way: deque[tuple[T, Future[R]]] = deque()
        try:
            for item in items:
                under_way.append((item, pool.submit(function, item)))
                if len(under_way) >= _WAITING:
                    first, future = under_way.popleft()
                    yield first, future.result()
            while under_way:
                first, future = under_way.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
