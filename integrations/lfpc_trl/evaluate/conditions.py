"""What a model is shown in place of its crops, to find out what its answers come from."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Literal, get_args

from lfpc_trl.data.rows import Row
from lfpc_trl.errors import not_some_of
from lfpc_trl.rollouts.crop_tool import CropSettings

Condition = Literal["predicted", "target", "noise", "elsewhere", "no_picture", "no_tool"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
"""As the model is; the nearest target region; noise; another place; words without a picture; no tool offered.

All but the last begin with the first turn of `predicted`, so the crop is all that differs: a rollout that
never cropped is the same in all of them.
"""


def begins_as_predicted(condition: Condition) -> bool:
    """Whether a condition takes its first turn from `predicted`."""
    return condition not in ("predicted", "no_tool")


def choose(names: Collection[str] | None, rows: Sequence[Row]) -> tuple[Condition, ...]:
    """The conditions of an evaluation, in their usual order.

    Args:
        names: those that are wanted; None for all that apply. `predicted` is added if one of them begins as
            it does.
        rows: the rows; `target` applies to those with targets.

    Raises:
        ValueError: no or unknown names, or `target` is wanted and no row has targets.
    """
    has_targets = any(row.regions is not None for row in rows)
    if names is None:
        return tuple(name for name in CONDITIONS if name != "target" or has_targets)
    if not names or set(names) - set(CONDITIONS):
        raise ValueError(not_some_of("conditions", sorted(names), CONDITIONS))
    if "target" in names and not has_targets:
        raise ValueError("the condition target needs rows with targets, and no row has any")
    wanted = {name for name in CONDITIONS if name in names}
    if any(begins_as_predicted(name) for name in wanted):
        wanted.add("predicted")
    return tuple(name for name in CONDITIONS if name in wanted)


def applies(condition: Condition, row: Row) -> bool:
    """Whether a condition can be made for a row."""
    return condition != "target" or row.regions is not None


def crops_under(condition: Condition, crops: CropSettings) -> CropSettings:
    """The crop settings of a condition; without the tool they cut nothing."""
    return dataclasses.replace(crops, crop_source="predicted" if condition == "no_tool" else condition)
