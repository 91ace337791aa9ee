"""What two processes do to each other's pictures; apart from the tests, so that they start fast."""

import os

from accelerate import PartialState
from accelerate.utils import gather_object

from lfpc_trl.pictures.lazy import LazyImage, Part


def gather(rank, path, port, results):
    """One of two processes: gathers the shown picture and a crop of each."""
    world = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in world.items()})
    state = PartialState(cpu=True)
    gathered = gather_object(pictures(path, rank))
    results.put([(type(image).__name__, image.tobytes()) for image in gathered])
    state.destroy_process_group()


def pictures(path, rank):
    """The pictures that a process has."""
    length = path.stat().st_size
    box = (10 * rank, 0, 10 * rank + 56, 56)
    return [LazyImage(Part(str(path), length, (112, 84))), LazyImage(Part(str(path), length, (56, 56), box))]
