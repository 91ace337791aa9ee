"""Picture sizes and their cost in visual tokens.

Sizes are (width, height) in pixels. `factor` is the side of one visual token of the model in pixels (patch
size times merge size: 28 for Qwen2.5-VL, 32 for Qwen3-VL).
"""

from PIL import Image

from lfpc_rewards import smart_resize

Size = tuple[int, int]
"""(width, height) in pixels."""
MAX_ASPECT = 200.0
"""Qwen's processors refuse pictures with a larger aspect ratio (`smart_resize` in transformers)."""


def fit(size: Size, max_tokens: int, factor: int) -> Size:
    """Return the nearest size in whole visual tokens, with at most `max_tokens` if the shape allows it."""
    width, height = size
    tall, wide = smart_resize(
        height, width, factor=factor, min_pixels=factor * factor, max_pixels=max_tokens * factor * factor
    )
    # A strip rounded up to a width of one token may become too long for the processors.
    return min(int(wide), int(MAX_ASPECT) * int(tall)), min(int(tall), int(MAX_ASPECT) * int(wide))


def shown_size(original_size: Size, max_tokens: int, *, factor: int) -> Size:
    """Return the size at which a picture is shown with at most `max_tokens` visual tokens.

    Both sides are multiples of `factor`, so the model's processor does not resize the picture, and boxes in
    shown pixels need no further scaling. A picture that needs fewer tokens is shown at its own size (rounded
    to whole tokens), never larger. A strip too long for the budget is one token wide and may exceed it.

    Args:
        original_size: (width, height) in pixels; the longer side at most 200 times the shorter.
        max_tokens: maximum visual tokens, at least 1.
        factor: side of a visual token in pixels.

    Returns:
        (width, height) in pixels.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    return fit(original_size, max_tokens, factor)


def tokens_of(size: Size, factor: int) -> int:
    """Return the visual tokens of a picture whose sides are multiples of `factor`."""
    return (size[0] // factor) * (size[1] // factor)


def show(image: Image.Image, size: Size) -> Image.Image:
    """Resize `image` to `size` (bicubic with antialiasing, like Qwen's processors)."""
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def budget_ladder(original_size: Size, *, factor: int, finest: int, coarsest: int) -> list[int]:
    """Return token budgets from fine to coarse: the original's own (at most `finest`), halved to `coarsest`.

    Returns:
        Decreasing budgets; the last is `coarsest`, or the original's own if that is smaller.

    Source:
        The paper downsamples "step by step" without giving the steps: halving is our choice.
    """
    if not 1 <= coarsest <= finest:
        raise ValueError(f"needs 1 <= coarsest <= finest, got coarsest {coarsest} and finest {finest}")
    budget = tokens_of(fit(original_size, finest, factor), factor)
    ladder = [budget]
    while budget > coarsest:
        budget = max(budget // 2, coarsest)
        ladder.append(budget)
    return ladder
