"""Splits such as train and test that share no picture and no near-duplicate of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_trl.data.rows import Row
from lfpc_trl.errors import UserError
from lfpc_trl.pictures.near_duplicates import DISTANCE, Fingerprint, near_duplicates

Fingerprints = Mapping[Path, Fingerprint]


class Leak(NamedTuple):
    """A row with a picture that, or a near-duplicate of which, is in another data set.

    Attributes:
        row: the row.
        image: its picture; of several the nearest one.
        other: the picture in the other data set; of several the nearest.
        distance: number of differing bits of the two hashes.
    """

    row: Row
    image: Path
    other: Path
    distance: int


@dataclass(frozen=True)
class Parts:
    """A data set divided into parts.

    Attributes:
        rows: rows of each part, in their original order.
        alike: groups of pictures that are near-duplicates of each other.
    """

    rows: dict[str, list[Row]]
    alike: list[list[Path]]


def find_leaks(
    rows: Sequence[Row], others: Sequence[Row], prints: Fingerprints, *, distance: int = DISTANCE
) -> list[Leak]:
    """Find the rows that would leak from one data set into another.

    Args:
        rows: rows of the data set that must not leak.
        others: rows of the other data set, such as a benchmark.
        prints: fingerprints of all pictures of both.
        distance: most bits in which the hashes of near-duplicates differ.
    """
    mine, theirs = _pictures(rows), _pictures(others)
    nearest: dict[Path, tuple[int, Path]] = {}
    for pairs in near_duplicates(
        [prints[each] for each in mine], [prints[each] for each in theirs], distance
    ):
        for one, other, apart in pairs.tolist():
            found = apart, theirs[other]
            nearest[mine[one]] = min(nearest.get(mine[one], found), found)
    leaks = []
    for row in rows:
        of_row = [(*nearest[each], each) for each in _images(row) if each in nearest]
        if of_row:
            apart, other, image = min(of_row)
            leaks.append(Leak(row, image, other, apart))
    return leaks


def split(
    rows: Sequence[Row],
    shares: Mapping[str, float],
    prints: Fingerprints,
    *,
    seed: int = 0,
    distance: int = DISTANCE,
) -> Parts:
    """Divide rows by picture: all rows of a picture and of its near-duplicates stay together.

    All pictures of a row stay together too. Groups are assigned in random order, each to the part that lacks
    the most rows.

    Args:
        rows: rows of a data set.
        shares: share of the rows by name of the part; they sum to 1.
        prints: fingerprints of all pictures.
        seed: seed of the random order.
        distance: most bits in which the hashes of near-duplicates differ.

    Raises:
        UserError: the shares are not positive numbers that sum to 1, or a part would be empty.
    """
    if not shares or min(shares.values()) <= 0 or not isclose(sum(shares.values()), 1):
        told = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise UserError(f"shares must be positive and sum to 1, got {told}")
    pictures = _pictures(rows)
    numbers = {path: number for number, path in enumerate(pictures)}
    together = [[numbers[row.image], numbers[each]] for row in rows for each in _images(row)]
    alike = _alike([prints[each] for each in pictures], distance)
    groups = _components(len(pictures), np.concatenate([alike, np.array(together, dtype=np.int64)]))
    group_of = dict(zip(pictures, groups.tolist(), strict=True))
    sizes = np.bincount([group_of[row.image] for row in rows])
    lacking = {name: share * len(rows) for name, share in shares.items()}
    part_of: dict[int, str] = {}
    for group in np.random.default_rng(seed).permutation(len(sizes)).tolist():
        part = max(lacking, key=lacking.__getitem__)
        part_of[group] = part
        lacking[part] -= sizes[group]
    parts: dict[str, list[Row]] = {name: [] for name in shares}
    for row in rows:
        parts[part_of[group_of[row.image]]].append(row)
    for name, found in parts.items():
        if not found:
            raise UserError(
                f"{name} would be empty: the {len(rows)} rows are about {len(sizes)} distinct pictures"
            )
    found_alike: dict[int, list[Path]] = {}
    for path, first in zip(pictures, alike[:, 1].tolist(), strict=True):
        found_alike.setdefault(first, []).append(path)
    return Parts(parts, [each for each in found_alike.values() if len(each) > 1])


def _images(row: Row) -> list[Path]:
    return [picture.image for picture in row.pictures]


def _pictures(rows: Sequence[Row]) -> list[Path]:
    return list(dict.fromkeys(path for row in rows for path in _images(row)))


def _alike(prints: Sequence[Fingerprint], distance: int) -> NDArray[np.int64]:
    """(n, 2) each picture, and the first picture of its connected component of near-duplicates."""
    edges = np.stack([np.arange(len(prints))] * 2, axis=1)
    for pairs in near_duplicates(prints, prints, distance):
        groups = _components(len(prints), np.concatenate([edges, pairs[:, :2]]))
        # Keep components, not pairs: 10,000 frames of a film have 50 million pairs.
        _, first = np.unique(groups, return_index=True)
        edges = np.stack([np.arange(len(prints)), first[groups]], axis=1)
    return edges


def _components(count: int, edges: NDArray[np.int64]) -> NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    labels: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
