"""A faster mask decoder for many clicks on one picture: gives what `network.decode` gives, with less work.

It equals transformers' two-way mask decoder up to rounding:

- Until the first block writes to the picture, the picture is the same for every click. Its projections are computed
  once.
- A click has fewer than ten tokens, the picture thousands of cells. The library projects every cell to keys, values or
  queries. Here the tokens are multiplied by the transposed projection instead, which halves the products.
- Masks are drawn last, and only for accepted clicks: the estimated IoU follows from the tokens alone, and rejects most
  answers to a grid.

A bias of the keys shifts all scores of a softmax equally, so it is left out. A bias of the values is added after the
sum. Knows nothing of grids or thresholds beyond the two of `answer`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Sam2VideoModel

from model import devices, network
from model.frame_masks import check_finite
from model.network import Clicks, Features


@dataclass(frozen=True)
class Answers:
    """The answers to M of N clicks."""

    rows: NDArray[np.int64]  # (M,), the clicks that were answered
    logits: Tensor  # float (M, 3, 4h, 4w)
    iou: Tensor  # float (M, 3)
    object_score: Tensor  # float (M,)


class PointDecoder:
    """Answers clicks on one picture. Make one for each picture."""

    def __init__(self, model: Sam2VideoModel, features: Features) -> None:
        """features: of one picture, batch 1."""
        decoder = model.mask_decoder
        self._model, self._decoder = model, decoder
        self._side = features.top.shape[-2:]
        self._layers = [_Block(layer) for layer in decoder.transformer.layers]
        self._last = _Cross(decoder.transformer.final_attn_token_to_image)
        nothing = model.prompt_encoder.no_mask_embed.weight.view(1, -1)
        self._cells = network.without_memory(model, features)[0].flatten(1).t() + nothing  # (L, C)
        self._place = model.get_image_wide_positional_embeddings()[0].flatten(1).t().contiguous()
        first = self._layers[0]
        placed = self._cells + self._place
        self._seen = (first.to_image.keys(placed), first.to_image.values(self._cells), first.from_image.queries(placed))
        self._fine = [_squares(m[0], by) for m, by in zip(features.high_res, (4, 2), strict=True)]

    @torch.inference_mode()
    def answer(self, clicks: Clicks, *, min_iou: float = 0.0, min_object_score: float = -math.inf) -> Answers:
        """Three masks for each click whose best estimated IoU and whose presence reach these thresholds.

        Raises NotFinite if an estimate or a mask is not finite: no threshold would notice.
        """
        sparse, _ = self._model.prompt_encoder(
            input_points=clicks.xy[:, None], input_labels=clicks.labels[:, None], input_boxes=None, input_masks=None
        )
        d = self._decoder
        own = torch.cat([d.obj_score_token.weight, d.iou_token.weight, d.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse[:, 0].to(own.dtype)], 1)
        together = 8 if tokens.device.type == "cpu" else 64  # 8 pictures fit into the cache of a CPU
        rows: list[int] = []
        found, seen = [], []
        for begin in range(0, len(tokens), together):
            answered, pictures = self._transformed(tokens[begin : begin + together])
            iou, score = d.iou_prediction_head(answered[:, 1])[:, 1:], d.pred_obj_score_head(answered[:, 0])[:, 0]
            good, index = devices.rows_of((iou.amax(1) >= min_iou) & (score >= min_object_score))
            drawn = self._drawn(answered[index, 3 : 2 + d.num_mask_tokens], [pictures[row] for row in good])
            rows += [begin + row for row in good]
            found.append((drawn, iou[index], score[index]))
            seen += [iou, score]
        logits, iou, score = (torch.cat(parts) for parts in zip(*found, strict=True))
        check_finite(logits, seen)
        return Answers(np.array(rows, dtype=np.int64), logits, iou, score)

    def _drawn(self, tokens: Tensor, pictures: Sequence[Tensor]) -> Tensor:
        """Masks as logits: float (M, 3, 4h, 4w). tokens: float (M, 3, C).  pictures: M of float (L, C)."""
        d, (height, width) = self._decoder, self._side
        weights = [mlp(tokens[:, i]) for i, mlp in enumerate(d.output_hypernetworks_mlps[1:])]
        hyper = torch.stack(weights, 1)  # (M, 3, C / 8)
        out = hyper.new_empty(len(tokens), 3, 4 * height, 4 * width)
        fine, mid = self._fine
        norm = d.upscale_layer_norm
        for n, picture in enumerate(pictures):  # one at a time, to stay in the cache and to bound scratch memory
            x = _enlarged(d.upscale_conv1, picture) + mid  # (L * 4, C / 4)
            x = F.gelu(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
            x = F.gelu(_enlarged(d.upscale_conv2, x) + fine)  # (L * 16, C / 8)
            mask = (hyper[n] @ x.t()).view(3, height, width, 2, 2, 2, 2)
            out[n] = mask.permute(0, 1, 3, 5, 2, 4, 6).reshape(3, 4 * height, 4 * width)
        return out

    def _transformed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The two-way transformer: tokens float (N, T, C) -> tokens and pictures float (N, L, C)."""
        first, *others = self._layers
        keys, values, shared_queries = self._seen
        x = first.self_attend(tokens, tokens, replace=True)
        x = first.norm2(x + first.to_image.read_shared(x + tokens, keys, values))
        x = first.norm3(x + first.mlp(x))
        picture = first.norm4(self._cells + first.from_image.write_shared(shared_queries, x + tokens, x))
        placed = picture + self._place
        for layer in others:
            x = layer.self_attend(x, tokens, replace=False)
            x = layer.norm2(x + layer.to_image.read_own(x + tokens, placed, picture))
            x = layer.norm3(x + layer.mlp(x))
            picture = layer.norm4(picture + layer.from_image.write_own(placed, x + tokens, x))
            placed = picture + self._place
        last = self._decoder.transformer.layer_norm_final_attn
        return last(x + self._last.read_own(x + tokens, placed, picture)), picture


class _Block:
    """One block of the two-way transformer."""

    def __init__(self, block: Any) -> None:
        self._self = block.self_attn
        self.to_image = _Cross(block.cross_attn_token_to_image)
        self.from_image = _Cross(block.cross_attn_image_to_token)
        self.norm1, self.norm2 = block.layer_norm1, block.layer_norm2
        self.norm3, self.norm4 = block.layer_norm3, block.layer_norm4
        self.mlp = block.mlp

    def self_attend(self, x: Tensor, tokens: Tensor, *, replace: bool) -> Tensor:
        """Self-attention of the tokens. In the first block its result replaces them."""
        asked = (x if replace else x + tokens)[:, None]
        answered = self._self(query=asked, key=asked, value=x[:, None])[0][:, 0]
        out: Tensor = self.norm1(answered if replace else x + answered)
        return out


class _Cross:
    """Attention between T tokens and L cells, in h heads of d channels."""

    def __init__(self, attention: Any) -> None:
        self._a = attention
        self._heads, self._d = attention.num_attention_heads, attention.head_dim
        self._scale = attention.scaling

    def keys(self, cells: Tensor) -> Tensor:
        """Float (L, C) -> (h, d, L)."""
        return self._split(self._a.k_proj(cells)).transpose(1, 2).contiguous()

    def values(self, cells: Tensor) -> Tensor:
        """Float (L, C) -> (h, L, d)."""
        return self._split(self._a.v_proj(cells)).contiguous()

    def queries(self, cells: Tensor) -> Tensor:
        """Float (L, C) -> (h, L, d)."""
        return self._split(self._a.q_proj(cells)).contiguous()

    def _split(self, x: Tensor) -> Tensor:
        return x.view(len(x), self._heads, self._d).transpose(0, 1)

    def _of_tokens(self, x: Tensor) -> Tensor:
        """Float (N, T, h * d) -> (N, h, T, d)."""
        return x.view(x.shape[0], x.shape[1], self._heads, self._d).transpose(1, 2)

    def read_shared(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention of the tokens to one picture, shared by all: float (N, T, C)."""
        asked = self._of_tokens(self._a.q_proj(tokens)) * self._scale
        seen = (asked @ keys).softmax(-1) @ values
        out: Tensor = self._a.o_proj(seen.transpose(1, 2).flatten(2))
        return out

    def read_own(self, tokens: Tensor, placed: Tensor, picture: Tensor) -> Tensor:
        """Attention of the tokens to a picture each: float (N, T, C). placed, picture: float (N, L, C)."""
        n, t, c = tokens.shape
        asked = self._of_tokens(self._a.q_proj(tokens)) * self._scale  # (N, h, T, d)
        carried = asked @ self._a.k_proj.weight.view(self._heads, self._d, c)  # (N, h, T, C)
        scores = torch.bmm(carried.flatten(1, 2), placed.transpose(1, 2))  # (N, h * T, L)
        seen = torch.bmm(scores.softmax(-1), picture).view(n, self._heads, t, c)
        seen = seen @ self._a.v_proj.weight.view(self._heads, self._d, c).transpose(1, 2)  # (N, h, T, d)
        out: Tensor = self._a.o_proj(seen.transpose(1, 2).flatten(2) + self._a.v_proj.bias)
        return out

    def write_shared(self, queries: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """Attention of one picture, shared by all, to the tokens: float (N, L, C). queries: float (h, L, d)."""
        keys = self._of_tokens(self._a.k_proj(tokens)) * self._scale  # (N, h, T, d)
        scores = (keys @ queries.transpose(1, 2)).softmax(2)  # (N, h, T, L)
        return self._summed(scores.flatten(1, 2), values)

    def write_own(self, placed: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
        """Attention of a picture each to the tokens: float (N, L, C). placed: float (N, L, C)."""
        n, t, c = tokens.shape
        keys = self._of_tokens(self._a.k_proj(tokens)) * self._scale  # (N, h, T, d)
        carried = keys @ self._a.q_proj.weight.view(self._heads, self._d, c)  # (N, h, T, C)
        bias = (keys * self._a.q_proj.bias.view(self._heads, 1, self._d)).sum(-1).flatten(1)[..., None]  # (N, h * T, 1)
        scores = torch.baddbmm(bias, carried.flatten(1, 2), placed.transpose(1, 2))  # (N, h * T, L)
        return self._summed(scores.view(n, self._heads, t, -1).softmax(2).flatten(1, 2), values)

    def _summed(self, weights: Tensor, values: Tensor) -> Tensor:
        """The sums of projected values: float (N, L, C). weights: float (N, h * T, L), sum 1 over a head's tokens."""
        answered = self._of_tokens(self._a.v_proj(values))  # (N, h, T, d)
        carried = answered @ self._a.o_proj.weight.t().view(self._heads, self._d, -1)  # (N, h, T, C)
        summed = torch.bmm(weights.transpose(1, 2), carried.flatten(1, 2))
        out: Tensor = summed + self._a.o_proj.bias
        return out


def _enlarged(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A 2 x 2 transposed convolution as a matrix product: float (R, C) -> (R * 4, C'), a cell's four in sequence."""
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * C', C)
    assert conv.bias is not None
    return F.linear(x, weight, conv.bias.repeat(4)).view(4 * len(x), -1)


def _squares(x: Tensor, by: int) -> Tensor:
    """A map in the order that `_enlarged` gives: float (C, by * h, by * w) -> (h * w * by ** 2, C)."""
    c, height, width = x.shape
    h, w = height // by, width // by
    if by == 2:
        return x.view(c, h, 2, w, 2).permute(1, 3, 2, 4, 0).reshape(-1, c)
    return x.view(c, h, 2, 2, w, 2, 2).permute(1, 4, 2, 5, 3, 6, 0).reshape(-1, c)
