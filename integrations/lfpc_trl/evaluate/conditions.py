"""The conditions of an evaluation: what replaces the model's crops, to test what its answers depend on."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Literal, get_args

from lfpc_trl.data.rows import Row
from lfpc_trl.errors import not_some_of
from lfpc_trl.rollouts.crop_tool import CropSettings

Condition = Literal["predicted", "target", "noise", "elsewhere", "no_picture", "no_tool"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
"""Own crop; nearest target region; noise; another region; text without a picture; no tool offered.

All but the last reuse the first turn of `predicted`, so only the crop differs: a rollout that never cropped
is the same under all of them.
"""


def reuses_first_turn(condition: Condition) -> bool:
    """Whether a condition reuses the first turn of `predicted`."""
    return condition not in ("predicted", "no_tool")


def choose(names: Collection[str] | None, rows: Sequence[Row]) -> tuple[Condition, ...]:
    """Select the conditions of an evaluation, in the order of `CONDITIONS`.

    Args:
        names: the requested conditions; None for all that apply. `predicted` is added if one of them reuses
            its first turn.
        rows: the rows; `target` applies to those with targets.

    Raises:
        ValueError: no names, unknown names, or `target` is requested and no row has targets.
    """
    has_targets = any(row.regions is not None for row in rows)
    if names is None:
        return tuple(name for name in CONDITIONS if name != "target" or has_targets)
    if not names or set(names) - set(CONDITIONS):
        raise ValueError(not_some_of("conditions", sorted(names), CONDITIONS))
    if "target" in names and not has_targets:
        raise ValueError("the condition target needs rows with targets, and no row has any")
    chosen = {name for name in CONDITIONS if name in names}
    if any(reuses_first_turn(name) for name in chosen):
        chosen.add("predicted")
    return tuple(name for name in CONDITIONS if name in chosen)


def applies(condition: Condition, row: Row) -> bool:
    """Whether a row can be evaluated under a condition."""
    return condition != "target" or row.regions is not None


def crop_settings_for(condition: Condition, crops: CropSettings) -> CropSettings:
    """Return the crop settings of a condition; under `no_tool` they are not used."""
    return dataclasses.replace(crops, crop_source="predicted" if condition == "no_tool" else condition)
