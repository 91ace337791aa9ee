"""Attention-in-Box: the share of attention to a picture that falls on the evidence, per layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lfpc_trl.pictures.sizes import Size


def token_cover(box: ArrayLike, size: Size, grid: tuple[int, int]) -> NDArray[np.float64]:
    """The share of each visual token that lies in a box.

    Args:
        box: xyxy in pixels of the picture as the model sees it.
        size: (width, height) of that picture.
        grid: (columns, rows) of visual tokens.

    Returns:
        (rows * columns,) shares from 0 to 1, in row-major order.
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
    """The share of attention to visual tokens that falls into a box.

    Args:
        attentions: (heads, length, length) of each layer; rows attend to columns.
        visual: (N,) positions of all visual tokens.
        cover: (N,) share of each visual token that lies in the box.
        queries: query positions, such as those of the answer.

    Returns:
        (layers,) from 0 to 1; NaN if a layer gives visual tokens no attention. Heads and queries are summed
        before the division.

    Source:
        LOCUS (arXiv 2606.16586): mass in the box divided by mass on the picture. Weighting a token on the
        border by its share inside is our choice.
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
        model: from `load_model` with ``attention="eager"``: other implementations return no attention.
        inputs: the processor's output for one sequence: `input_ids`, `pixel_values`, `image_grid_thw` and any
            other inputs of the model.
        box: xyxy in pixels of the picture as the model sees it.
        picture: index of the picture with the box. Attention to the others counts as outside.
        queries: query positions: the last token of a prompt, or the tokens of an answer.

    Returns:
        (layers,), one share per layer of the language model.

    Raises:
        ValueError: the model does not use eager attention, or there is not exactly one sequence.
    """
    if model.config.get_text_config()._attn_implementation != "eager":  # noqa: SLF001
        raise ValueError('model must be loaded with attention="eager", which returns attention weights')
    ids = inputs["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"input_ids must hold one sequence, got {len(ids)}")
    vision = model.config.vision_config
    merge, patch = vision.spatial_merge_size, vision.patch_size
    visual = (ids[0] == model.config.image_token_id).nonzero().ravel().cpu().numpy()
    cover = np.zeros(len(visual))
    start = 0
    for number, (_, rows, columns) in enumerate(inputs["image_grid_thw"].tolist()):
        stop = start + rows * columns // merge**2
        if number == picture:
            size, grid = (columns * patch, rows * patch), (columns // merge, rows // merge)
            cover[start:stop] = token_cover(box, size, grid)
        start = stop
    attentions = model(**inputs, output_attentions=True).attentions
    return attention_in_box([layer[0].float().cpu().numpy() for layer in attentions], visual, cover, queries)
