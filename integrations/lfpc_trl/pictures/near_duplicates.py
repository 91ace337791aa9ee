"""Near-duplicates: the same photograph resized, recompressed, in gray, or slightly trimmed.

Pictures are compared by a perceptual hash (pHash of the imagehash package): 256 bits that say which
frequencies of the picture at 64 x 64 pixels are above the median. Among the photographs of two Debian
wallpaper packages and of scikit-image, different photographs were at least 100 bits apart; the same one
resized to a quarter and saved as a JPEG of quality 50 at most 64; trimmed by 1 % at most 60. Mirrored
pictures and parts of pictures are not detected.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_trl.pictures.opening import opened
from lfpc_trl.pictures.originals import load_small

DISTANCE = 64
"""Maximum number of bits by which the hashes of near-duplicates differ; see above."""
_SIDE = 16
_BITS = _SIDE * _SIDE
_PLAIN = 4.0
"""Pictures with a lower standard deviation of gray values (0 to 255) are too plain to compare. Our choice."""
_BLOCK = 1024
"""Pictures compared with as many others at a time: 4 MB of distances."""


class Fingerprint(NamedTuple):
    """The hashes by which a picture is compared.

    Attributes:
        digest: SHA-256 of its file; equal files are the same picture.
        bits: the 256 bits of its perceptual hash, 8 in a byte; None for a plain picture, which is compared
            only by its file.
    """

    digest: bytes
    bits: bytes | None


def fingerprint(path: Path) -> Fingerprint:
    """Compute the fingerprint of a picture after its EXIF rotation.

    Raises:
        OSError: the file is missing or is not a picture that can be decoded.
    """
    import imagehash

    with opened(path) as file:
        digest = hashlib.sha256(file.read()).digest()
    picture = load_small(path, 8 * _SIDE).convert("L")
    if np.asarray(picture, dtype=np.float64).std() < _PLAIN:
        return Fingerprint(digest, None)
    return Fingerprint(digest, np.packbits(imagehash.phash(picture, hash_size=_SIDE).hash).tobytes())


def near_duplicates(
    some: Sequence[Fingerprint], others: Sequence[Fingerprint], distance: int = DISTANCE
) -> Iterator[NDArray[np.int64]]:
    """Find all near-duplicates between two sets of pictures, `_BLOCK` pictures at a time.

    Args:
        some: the pictures to search for.
        others: the pictures to search in; may be the same.
        distance: maximum number of differing bits, 0 to 256.

    Yields:
        (pairs, 3) index in `some`, index in `others`, number of differing bits; sorted by both indices.
    """
    for start in range(0, len(some), _BLOCK):
        block = _table(some[start : start + _BLOCK])
        found = [np.empty((0, 3), dtype=np.int64)]
        for behind in range(0, len(others), _BLOCK):
            pairs = _near(*block, *_table(others[behind : behind + _BLOCK]), distance)
            found.append(pairs + np.array([start, behind, 0]))
        pairs = np.concatenate(found)
        yield pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _near(
    signs: NDArray[np.float32],
    digests: NDArray[np.bytes_],
    other_signs: NDArray[np.float32],
    other_digests: NDArray[np.bytes_],
    distance: int,
) -> NDArray[np.int64]:
    """(pairs, 3) index in each table, number of differing bits."""
    # The product of two rows of 1 and -1 is the number of equal bits minus that of differing bits.
    apart = (_BITS - signs @ other_signs.T) / 2
    apart[~signs.any(axis=1)] = _BITS  # plain pictures have rows of 0
    apart[:, ~other_signs.any(axis=1)] = _BITS
    apart[digests[:, None] == other_digests[None, :]] = 0
    one, other = np.nonzero(apart <= distance)
    return np.stack([one, other, apart[one, other].astype(np.int64)], axis=1)


def _table(fingerprints: Sequence[Fingerprint]) -> tuple[NDArray[np.float32], NDArray[np.bytes_]]:
    """Return the bits as 1 and -1 (all 0 for a plain picture), and the digests."""
    signs = np.zeros((len(fingerprints), _BITS), dtype=np.float32)
    for row, each in zip(signs, fingerprints, strict=True):
        if each.bits is not None:
            row[:] = np.where(np.unpackbits(np.frombuffer(each.bits, dtype=np.uint8)), 1, -1)
    return signs, np.array([each.digest.hex() for each in fingerprints], dtype="S64")
