"""The example rollouts on the page of an evaluation, as data for its script."""

import base64
import json
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards.rewards import OVERLAP_THRESHOLD
from lfpc_trl.evaluate.summary import Columns
from lfpc_trl.runs.reading import Run, conversation, pictures_of

LIMIT = 300
"""Maximum number of rollouts on a page."""
PICTURE_BYTES = 8 << 20
"""Size limit for the pictures of a page, in bytes of JPEG: no rollouts are added beyond it."""
LOW_OVERLAP = OVERLAP_THRESHOLD
"""Overlap below which a crop is listed as low: the paper's threshold in the grounding reward."""
TEXT_LIMIT = 4000
"""Maximum characters per text, so that a runaway completion does not fill the page."""

_FACTS = ("benchmark", "budget", "condition", "category", "sample", "row_id")
_SCORES = ("accuracy", "overlap", "iou", "crops", "failed_calls")


def choose(columns: Columns, limit: int = LIMIT) -> list[int]:
    """Choose rollouts for the page, so that every filter matches some.

    First, one rollout for every benchmark, budget, condition and outcome. Then their combinations are sampled
    round-robin, each in the order of a checksum of the row id, so that a row tends to be there under all
    conditions and no rollout is picked for how good it looks.

    Args:
        columns: the columns of all rollouts.
        limit: the maximum number of rollouts.

    Returns:
        Their indices, in the order in which they were chosen.
    """
    outcomes = np.stack(list(_outcomes(columns).values()), axis=1)
    order = sorted(range(len(outcomes)), key=lambda index: zlib.crc32(columns["row_id"][index].encode()))
    first_of: dict[Any, int] = {}
    strata: dict[Any, list[int]] = defaultdict(list)
    for index in order:
        group = tuple(columns[name][index] for name in ("benchmark", "budget", "condition"))
        outcome = tuple(outcomes[index].tolist())
        strata[group, outcome].append(index)
        for name in (
            *enumerate(group),
            *(("outcome", number) for number, applies in enumerate(outcome) if applies),
        ):
            first_of.setdefault(name, index)
    chosen = dict.fromkeys(first_of.values())
    queues = [list(reversed(indices)) for indices in strata.values()]
    while len(chosen) < min(limit, len(order)):
        for indices in queues:
            while indices and indices[-1] in chosen:
                indices.pop()
            if indices and len(chosen) < limit:
                chosen[indices.pop()] = None
    return list(chosen)[:limit]


def _outcomes(columns: Columns) -> dict[str, NDArray[np.bool_]]:
    """Return the page's outcome filters as masks; one rollout may match several."""
    numbers = {name: np.array(columns[name], dtype=np.float64) for name in ("accuracy", "crops", "overlap")}
    return {
        "wrong": numbers["accuracy"] < 0.5,
        "no_crop": numbers["crops"] == 0,
        "low_overlap": numbers["overlap"] < LOW_OVERLAP,
    }


def examples_of(
    output: Path, columns: Columns, *, limit: int = LIMIT, picture_bytes: int = PICTURE_BYTES
) -> dict[str, Any]:
    """Return chosen rollouts of an evaluation with their conversations and pictures.

    Args:
        output: the directory of the evaluation.
        columns: the columns of all its rollouts, in the order of its files.
        limit: the maximum number of rollouts.
        picture_bytes: size limit for all pictures, in bytes; a picture that several rollouts share counts
            once.

    Returns:
        Plain JSON: `count`, the number of all rollouts; `rollouts`, in the order of the files; `pictures`,
        JPEG in base64.
    """
    run = Run(output)
    outcomes = _outcomes(columns)
    pictures: dict[bytes, int] = {}
    bytes_left = picture_bytes
    kept: dict[int, dict[str, Any]] = {}
    chosen = choose(columns, limit)
    ranks = {index: rank for rank, index in enumerate(chosen)}
    # Read in file order, so that each part is read once; add in order of rank until the pictures fill up.
    conversations = {index: run.columns(index) for index in sorted(chosen)}
    for index in sorted(conversations, key=ranks.__getitem__):
        thumbnails = [each for each in conversations[index]["thumbnails"] or () if each]
        new_bytes = sum(len(each) for each in set(thumbnails) - set(pictures))
        if new_bytes > bytes_left:
            break
        bytes_left -= new_bytes
        numbers = [pictures.setdefault(each, len(pictures)) for each in thumbnails]
        kept[index] = (
            {name: columns[name][index] for name in (*_FACTS, *_SCORES)}
            | {name: bool(each[index]) for name, each in outcomes.items()}
            | _conversation(conversations[index])
            | {"pictures": numbers}
        )
    return {
        "count": len(columns["row_id"]),
        "rollouts": [kept[index] for index in sorted(kept)],
        "pictures": [base64.b64encode(each).decode("ascii") for each in pictures],
    }


def _conversation(columns: dict[str, Any]) -> dict[str, Any]:
    pictures = pictures_of(columns)
    return {
        "question": _short(columns["question"] or ""),
        "choices": [_short(each) for each in columns["choices"] or ()],
        "accepted": [_short(each) for each in columns["accepted"] or ()],
        "answer": None if columns["answer"] is None else _short(columns["answer"]),
        "ending": columns["ending"],
        "sizes": pictures.sizes,
        "box_images": pictures.box_images,
        "target_images": pictures.target_images,
        "boxes": columns["boxes"] or [],
        "targets": columns["targets"] or [],
        "messages": [
            {"role": message["role"], "parts": [_part(part) for part in message["parts"]]}
            for message in conversation(columns["messages"])
        ],
    }


def _part(part: dict[str, Any]) -> dict[str, Any]:
    return {name: _short(value) if isinstance(value, str) else value for name, value in part.items()}


def _short(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + " …"


def as_script_data(data: object) -> str:
    """Serialize data as JSON for a script element: the text can neither end the element nor start one."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def filters(rollouts: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the filter values that the page offers, in the order of the files."""
    return {
        name: list(dict.fromkeys(each[name] for each in rollouts))
        for name in ("benchmark", "budget", "condition")
    }
