"""The types used in signatures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes: TypeAlias = NDArray[Any]
"""(..., 4) float32 or float64 boxes ``x0, y0, x1, y1``; the upper edges are exclusive."""

BoxesLike: TypeAlias = ArrayLike
"""Whatever numpy can turn into `Boxes`: nested lists, one box, an array of numbers."""

Floats: TypeAlias = NDArray[Any]
"""float32 when every input was float32, else float64."""

Scores: TypeAlias = NDArray[np.float64]
"""(B,) one float per rollout; NaN means "this term does not apply to this row"."""

SizesLike: TypeAlias = ArrayLike
"""(..., 2) sizes of images in pixels, each (width, height)."""

Message: TypeAlias = Mapping[str, Any]
"""One message of a chat: ``{"role": ..., "content": ...}`` and perhaps ``"tool_calls"``."""

Accepted: TypeAlias = str | Sequence[str]
"""Right answers: one text, or a list of which any counts."""

Choices: TypeAlias = Sequence[str]
"""The texts of the options of a question; the first one is option A."""

Judge: TypeAlias = Callable[[str | None, str, list[str]], Awaitable[Literal["yes", "no", "unknown"]]]
"""``await judge(question, answer, accepted)``: whether the answer says the same as an accepted one."""
