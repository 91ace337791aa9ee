"""The rollouts that the page of an evaluation shows, as data for its script."""

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
"""Rollouts on a page."""
PICTURE_BYTES = 8 << 20
"""Pictures on a page, in bytes of their JPEG files: beyond it no more rollouts are added."""
LOW_OVERLAP = OVERLAP_THRESHOLD
"""Overlap below which a crop is listed as low: the paper's threshold of the grounding reward."""
TEXT_LIMIT = 4000
"""Characters of one text; a runaway model must not drown the page."""

_FACTS = ("benchmark", "budget", "condition", "category", "sample", "row_id")
_SCORES = ("accuracy", "overlap", "iou", "crops", "failed_calls")


def choose(columns: Columns, limit: int = LIMIT) -> list[int]:
    """Rollouts for the page, so that every filter finds some.

    Every benchmark, budget, condition and outcome comes first, each with one rollout. Then their combinations
    take turns, and within each the order is that of a checksum of the row, so that a row tends to be there
    under all conditions and nothing is picked by how well it looks.

    Args:
        columns: of all rollouts.
        limit: how many at most.

    Returns:
        Their positions in the order of choice.
    """
    outcomes = np.stack(list(_outcomes(columns).values()), axis=1)
    order = sorted(range(len(outcomes)), key=lambda place: zlib.crc32(columns["row_id"][place].encode()))
    wanted: dict[Any, int] = {}
    strata: dict[Any, list[int]] = defaultdict(list)
    for place in order:
        group = tuple(columns[name][place] for name in ("benchmark", "budget", "condition"))
        found = tuple(outcomes[place].tolist())
        strata[group, found].append(place)
        for name in (
            *enumerate(group),
            *(("outcome", number) for number, is_so in enumerate(found) if is_so),
        ):
            wanted.setdefault(name, place)
    chosen = dict.fromkeys(wanted.values())
    turns = [list(reversed(places)) for places in strata.values()]
    while len(chosen) < min(limit, len(order)):
        for places in turns:
            while places and places[-1] in chosen:
                places.pop()
            if places and len(chosen) < limit:
                chosen[places.pop()] = None
    return list(chosen)[:limit]


def _outcomes(columns: Columns) -> dict[str, NDArray[np.bool_]]:
    """The filters of the page by outcome; one rollout may pass several."""
    numbers = {name: np.array(columns[name], dtype=np.float64) for name in ("accuracy", "crops", "overlap")}
    return {
        "wrong": numbers["accuracy"] < 0.5,
        "no_crop": numbers["crops"] == 0,
        "low_overlap": numbers["overlap"] < LOW_OVERLAP,
    }


def examples_of(
    output: Path, columns: Columns, *, limit: int = LIMIT, picture_bytes: int = PICTURE_BYTES
) -> dict[str, Any]:
    """The chosen rollouts of an evaluation with their conversations and pictures.

    Args:
        output: its directory.
        columns: of all its rollouts, in the order of its files.
        limit: how many rollouts at most.
        picture_bytes: their pictures at most, in bytes; a picture that several share counts once.

    Returns:
        Plain JSON: `count`, all rollouts; `rollouts`, in the order of the files; `pictures`, JPEG in base64.
    """
    run = Run(output)
    outcomes = _outcomes(columns)
    pictures: dict[bytes, int] = {}
    room = picture_bytes
    kept: dict[int, dict[str, Any]] = {}
    chosen = choose(columns, limit)
    ranks = {place: rank for rank, place in enumerate(chosen)}
    # Read in the order of the files, which reads each part of them once; what has no room is dropped by rank.
    heavy = {place: run.columns(place) for place in sorted(chosen)}
    for place in sorted(heavy, key=ranks.__getitem__):
        thumbnails = [each for each in heavy[place]["thumbnails"] or () if each]
        fresh = sum(len(each) for each in set(thumbnails) - set(pictures))
        if fresh > room:
            break
        room -= fresh
        numbers = [pictures.setdefault(each, len(pictures)) for each in thumbnails]
        kept[place] = (
            {name: columns[name][place] for name in (*_FACTS, *_SCORES)}
            | {name: bool(each[place]) for name, each in outcomes.items()}
            | _shown(heavy[place])
            | {"pictures": numbers}
        )
    return {
        "count": len(columns["row_id"]),
        "rollouts": [kept[place] for place in sorted(kept)],
        "pictures": [base64.b64encode(each).decode("ascii") for each in pictures],
    }


def _shown(columns: dict[str, Any]) -> dict[str, Any]:
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
    """JSON that can stand inside a script element: no sign in it ends the element or starts another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def filters(rollouts: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """What the page offers to choose from, in the order of the files."""
    return {
        name: list(dict.fromkeys(each[name] for each in rollouts))
        for name in ("benchmark", "budget", "condition")
    }
