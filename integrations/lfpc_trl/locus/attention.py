"""Attention-in-Box: how much of the attention that a picture gets falls on the evidence, layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lfpc_trl.pictures.sizes import Size


def token_cover(box: ArrayLike, size: Size, grid: tuple[int, int]) -> NDArray[np.float64]:
    """How much of each visual token lies in a box.

    Args:
        box: xyxy in pixels of the picture as the model sees it.
        size: (width, height) of that picture.
        grid: (columns, rows) of visual tokens.

    Returns:
        (rows * columns,) shares from 0 to 1, row by row.
    """
    x0, y0, x1, y1 = np.asarray(box, np.float64)

    def along(low: float, high: float, length: int, cells: int) -> NDArray[np.float64]:
        edges = np.linspace(0, length, cells + 1)
        inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
        shares: NDArray[np.float64] = np.clip(inside, 0, None) * cells / length
        return shares

    return np.outer(along(y0, y1, size[1], grid[1]), along(x0, x1, size[0], grid[0])).ravel()


def attention_in_box(
    attentions: Sequence[ArrayLike], visual: ArrayLike, cover: ArrayLike, queries: Sequence[int]
) -> NDArray[np.float64]:
    """The share of the attention to visual tokens that falls into the box.

    Args:
        attentions: of each layer (heads, length, length), from row to column.
        visual: (N,) positions of all visual tokens.
        cover: (N,) how much of each lies in the box.
        queries: positions from which is looked, such as those of the answer.

    Returns:
        (layers,) from 0 to 1; NaN where a layer gives visual tokens no attention. Heads and queries are added
        up before the division.

    Source:
        LOCUS (arXiv 2606.16586): mass in the box divided by mass on the picture. That a token on the border
        counts with the part of it that is inside is our choice.
    """
    columns, weights = np.asarray(visual), np.asarray(cover, np.float64)
    shares = []
    for layer in attentions:
        rows = np.asarray(layer, np.float64)[:, list(queries)].sum((0, 1))[columns]
        total = rows.sum()
        shares.append(float(rows @ weights / total) if total > 0 else np.nan)
    return np.array(shares)


@torch.no_grad()
def model_attention_in_box(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    box: ArrayLike,
    *,
    picture: int = 0,
    queries: Sequence[int] = (-1,),
) -> NDArray[np.float64]:
    """`attention_in_box` of a Qwen-VL model for one sequence.

    Args:
        model: of `load_model` with ``attention="eager"``: others do not tell their attention.
        inputs: of the processor, one sequence: `input_ids`, `pixel_values`, `image_grid_thw` and what
            else the model takes.
        box: xyxy in pixels of the picture as the model sees it.
        picture: which picture of the sequence the box lies in. Attention to the others counts as outside.
        queries: positions from which is looked: the last token of a prompt, or the tokens of an answer.

    Returns:
        (layers,) of the language model.

    Raises:
        ValueError: the model does not use eager attention, or there is not exactly one sequence.
    """
    if model.config.get_text_config()._attn_implementation != "eager":  # noqa: SLF001
        raise ValueError('attention can be read only from a model that is loaded with attention="eager"')
    ids = inputs["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"input_ids must hold one sequence, got {len(ids)}")
    vision = model.config.vision_config
    merge, patch = vision.spatial_merge_size, vision.patch_size
    visual = (ids[0] == model.config.image_token_id).nonzero().ravel().cpu().numpy()
    cover = np.zeros(len(visual))
    start = 0
    for number, (_, tall, wide) in enumerate(inputs["image_grid_thw"].tolist()):
        stop = start + tall * wide // merge**2
        if number == picture:
            size, grid = (wide * patch, tall * patch), (wide // merge, tall // merge)
            cover[start:stop] = token_cover(box, size, grid)
        start = stop
    attentions = model(**inputs, output_attentions=True).attentions
    return attention_in_box([layer[0].float().cpu().numpy() for layer in attentions], visual, cover, queries)
