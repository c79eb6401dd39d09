"""A faster memory attention for a CPU, for inference: gives what `network.attend_to_memory` gives, with less work.

In float32 it equals transformers' memory attention up to rounding:

- Memory has 64 channels, attention 256. The attention weights are applied to the 64 channels. One matrix, the product
  of the output and value projections, follows after the sum. (Softmax weights add up to 1, so the bias can follow too.)
- The first layer's self-attention comes before any memory is read. It is the same for all objects of a frame, and is
  computed once.
- One object, a thousand keys and some hundred queries are processed at a time, in buffers that are reused. The scores
  stay in the CPU's cache, and scratch memory does not grow with the objects. The sums of a softmax are carried from
  block to block (Milakov and Gimelshein 2018). Its shift is left out if the norms of queries and keys exclude an
  overflow.

In bfloat16, which is fast on CPUs with matrix units, torch's own attention already keeps its scores in float32 and in
the cache. What this file saves there is the shared self-attention and the queries that are skipped.

`Economy` names work that may be skipped although it changes the result slightly. Knows nothing of objects' ids, frames
or prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Sam2VideoModel

from model import network

ROWS, KEYS = 512, 1024  # queries and keys at a time: 2 MB of scores
SPARSE = 4  # cells: outside a window, one cell of each 4 x 4 is read
FAINT = 80.0  # weights below e**-80 do not matter; numbers below e**-87 are denormal, and slow
SAFE = 60.0  # exponents up to this need no shift: e**60 times a million keys is far below the largest float32


@dataclass(frozen=True, kw_only=True)
class Economy:
    """Work that the tracker may skip. Everything is off by default.

    `benchmarks/results` has the cost of each: of the window as `benchmarks.tracker --window` measures it, of pooling
    from an earlier measurement.
    """

    pool_memory: int = 1  # memory is averaged over squares of this side, in cells of 16 px of the model's input
    # All cells are read only in a window: the box of the last mask, grown on each side by this share of its length.
    window_margin: float | None = None  # None: no window
    window_least: int = 4  # cells, the smallest margin


_Buffer = Callable[[str, int, int], Tensor]  # name, rows, columns
_Block = tuple[int, int, Tensor | None]  # a range of keys, and their rotary code
Window = tuple[int, int, int, int]  # x0, y0, x1, y1 in cells


@dataclass(frozen=True)
class Past:
    """What one object remembers, as tensors. All objects of one call have equal offsets.

    maps: float (K, 64, h, w), for the offsets `spatial_back`.  pointers: float (P, C), for `pointer_back`.
    window: the cells that must be read; None for all.
    """

    maps: Tensor
    pointers: Tensor
    window: Window | None = None


class MemoryReader:
    """The memory attention of a model, with weights arranged for reading. Keeps buffers: make one for each tracker."""

    def __init__(self, model: Sam2VideoModel, economy: Economy | None = None) -> None:
        self._model, self._economy = model, economy or Economy()
        self._layers = [_Layer(layer) for layer in model.memory_attention.layers]
        self._buffers: dict[str, Tensor] = {}
        self._turns: dict[tuple[int, int, int], Tensor] = {}

    def read(
        self,
        top: Tensor,
        top_position: Tensor,
        memory_position: Tensor,
        spatial_back: Sequence[int],
        pointer_back: Sequence[int],
        pasts: Sequence[Past],
        pointer_span: int,
    ) -> Tensor:
        """The top map of a frame, combined with each object's memories: float (N, C, h, w).

        top, top_position: float (1, C, h, w).  memory_position: float (1, 64, h, w).  Offsets as in
        `network.attend_to_memory`.
        """
        _, channels, height, width = top.shape
        pool = self._economy.pool_memory
        attention = self._model.memory_attention
        x = (top + 0.1 * top_position)[0].flatten(1).t().contiguous()  # (L, C)
        turn = self._turn_of(height, width, 1)
        x = self._layers[0].self_attend(x, turn)
        codes = self._codes(memory_position, spatial_back)
        pointer_code = network.pointer_code(self._model, pointer_back, pointer_span)
        out = torch.empty(len(pasts), height * width, channels, dtype=x.dtype)
        unread = attention.layer_norm(x)
        for n, past in enumerate(pasts):
            keys, values = self._memory(past, codes, pointer_code)
            blocks = self._blocks(len(spatial_back), height, width, len(keys))
            window = past.window
            if window is not None and x.dtype != torch.float32:
                window = _whole_squares(window, height, width)
            rows, stands_for = _rows_of(window, height, width)
            mine, mine_turn = x[rows], turn[rows]
            for number, layer in enumerate(self._layers):
                if number:
                    mine = layer.self_attend(mine, mine_turn)
                mine = layer.read_memory(mine, mine_turn, keys, values, blocks, pool**2, self._buffer)
                mine = layer.feed_forward(mine, self._buffer)
            read = attention.layer_norm(mine) - unread[rows]
            out[n] = unread + read[stands_for]
        return out.transpose(1, 2).reshape(len(pasts), channels, height, width)

    def _blocks(self, maps: int, height: int, width: int, count: int) -> list[_Block]:
        """The keys in blocks: several maps, or parts of one; then the object pointers, which have no rotary code."""
        turn = self._turn_of(height, width, self._economy.pool_memory)
        cells, together = len(turn), max(1, min(maps, KEYS // len(turn)))
        blocks: list[_Block] = []
        if together > 1:
            repeated = turn.repeat(together, 1)
            for begin in range(0, maps * cells, together * cells):
                end = min(begin + together * cells, maps * cells)
                blocks.append((begin, end, repeated[: end - begin]))
        else:
            for first in range(0, maps * cells, cells):
                blocks += [(first + i, first + min(i + KEYS, cells), turn[i : i + KEYS]) for i in range(0, cells, KEYS)]
        return [*blocks, (maps * cells, count, None)] if count > maps * cells else blocks

    def _memory(self, past: Past, codes: Tensor, pointer_code: Tensor) -> tuple[Tensor, Tensor]:
        """Keys with their codes and values: float (M, 64) each, maps first."""
        maps, pool = past.maps, self._economy.pool_memory
        channels = maps.shape[1]
        if pool > 1:
            maps = F.avg_pool2d(maps, pool)
        spatial = maps.flatten(2).transpose(1, 2)  # (K, l, 64)
        splits = past.pointers.shape[1] // channels if len(past.pointers) else 1
        pointers = past.pointers.reshape(-1, channels)
        values = torch.cat([spatial.reshape(-1, channels), pointers])
        keys = torch.cat(
            [(spatial + codes).reshape(-1, channels), pointers + pointer_code.repeat_interleave(splits, 0)]
        )
        return keys, values

    def _codes(self, position: Tensor, spatial_back: Sequence[int]) -> Tensor:
        """The position and age code of each memory: float (K, l, 64)."""
        pool = self._economy.pool_memory
        place = F.avg_pool2d(position, pool) if pool > 1 else position
        age = self._model.memory_temporal_positional_encoding[[back - 1 for back in spatial_back]]  # (K, 1, 1, 64)
        return place[0].flatten(1).t()[None] + age.reshape(len(spatial_back), 1, -1)

    def _turn_of(self, height: int, width: int, pool: int) -> Tensor:
        """The rotary code of each cell, or of the centre of each pooled square: complex (l, D / 2)."""
        key = (height, width, pool)
        if key not in self._turns:
            rotary = self._model.memory_attention.rotary_emb
            y, x = torch.meshgrid(torch.arange(height // pool), torch.arange(width // pool), indexing="ij")
            middle = (pool - 1) / 2
            ids = torch.stack([x.flatten(), y.flatten()], -1) * pool + middle
            cos, sin = rotary(ids, ids)
            self._turns[key] = torch.complex(cos[0, :, ::2].contiguous(), sin[0, :, ::2].contiguous())
        return self._turns[key]

    def _buffer(self, name: str, rows: int, columns: int) -> Tensor:
        """Scratch memory (rows, columns) that is reused. Its contents are undefined."""
        kept = self._buffers.get(name)
        if kept is None or kept.numel() < rows * columns:
            kept = self._buffers[name] = torch.empty(rows * columns, dtype=self._model.dtype)
        return kept[: rows * columns].view(rows, columns)


class _Layer:
    """One layer of the memory attention."""

    def __init__(self, layer: Any) -> None:  # the library's types for a module's members are too wide
        self._layer = layer
        cross = layer.cross_attn_image
        self._back = cross.o_proj.weight @ cross.v_proj.weight  # (C, 64)
        self._back_bias = cross.o_proj.weight @ cross.v_proj.bias + cross.o_proj.bias

    def self_attend(self, x: Tensor, turn: Tensor) -> Tensor:
        """Self-attention and its residual: float (L, C)."""
        attention = self._layer.self_attn
        normed = self._layer.layer_norm1(x)
        q, k, v = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
        _turn(q, turn)
        _turn(k, turn)
        seen = F.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None], scale=attention.scaling)
        return torch.add(x, attention.o_proj(seen[0, 0]))

    def read_memory(
        self,
        x: Tensor,
        turn: Tensor,
        keys: Tensor,
        values: Tensor,
        blocks: Sequence[_Block],
        cells: int,
        buffer: _Buffer,
    ) -> Tensor:
        """Cross-attention and its residual: float (L, C).

        keys, values: float (M, 64).  cells: the number of cells that a key stands for.
        """
        attention = self._layer.cross_attn_image
        q = attention.q_proj(self._layer.layer_norm2(x)).mul_(attention.scaling)
        _turn(q, turn)
        if x.dtype != torch.float32:
            return torch.add(x, attention.o_proj(self._seen_at_once(q, keys, values, blocks, cells)))
        seen, total = x.new_zeros(len(x), values.shape[1]), x.new_zeros(len(x), 1)
        shift: Tensor | None = None  # of each query's exponents, once one is needed
        longest = float(q.norm(dim=1).max())
        for begin, end, key_turn in blocks:
            k = buffer("keys", end - begin, q.shape[1])
            torch.addmm(attention.k_proj.bias, keys[begin:end], attention.k_proj.weight.t(), out=k)
            if key_turn is not None:
                _turn(k, key_turn)
            if shift is None and longest * float(k.norm(dim=1).max()) > SAFE:
                shift = torch.full_like(total, 0.0 if begin else -torch.inf)
            for row in range(0, len(x), ROWS):
                rows = slice(row, row + ROWS)
                some = q[rows]
                weights = torch.mm(some, k.t(), out=buffer("weights", len(some), len(k)))
                if shift is not None:
                    higher = torch.maximum(shift[rows], weights.amax(1, keepdim=True))
                    shrink = (shift[rows] - higher).exp_()
                    seen[rows] *= shrink
                    total[rows] *= shrink
                    shift[rows] = higher
                    weights.sub_(higher).clamp_(min=-FAINT)
                weights.exp_()
                worth = 1 if key_turn is None else cells  # of a key; a pooled key stands for several cells
                total[rows].add_(weights.sum(1, keepdim=True), alpha=worth)
                seen[rows].addmm_(weights, values[begin:end], alpha=worth)
        return torch.addmm(self._back_bias, seen.div_(total), self._back.t()).add_(x)

    def _seen_at_once(self, q: Tensor, keys: Tensor, values: Tensor, blocks: Sequence[_Block], cells: int) -> Tensor:
        """The sums of projected values, bfloat16 (L, C), all keys in one call. q is scaled and has its rotary code."""
        attention = self._layer.cross_attn_image
        k, v = attention.k_proj(keys), attention.v_proj(values)
        worth: Tensor | None = None  # added to scores: a pooled key counts once for each of its cells
        if cells > 1:
            worth = q.new_zeros(1, len(k))
        for begin, end, key_turn in blocks:
            if key_turn is not None:
                _turn(k[begin:end], key_turn)
                if worth is not None:
                    worth[:, begin:end] = math.log(cells)
        return F.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None], worth, scale=1.0)[0, 0]

    def feed_forward(self, x: Tensor, buffer: _Buffer) -> Tensor:
        """The feed-forward part and its residual: float (L, C)."""
        layer = self._layer
        hidden = buffer("hidden", ROWS, layer.linear1.out_features)
        normed, out = layer.layer_norm3(x), torch.empty_like(x)
        for begin in range(0, len(x), ROWS):
            some = normed[begin : begin + ROWS]
            h = torch.addmm(layer.linear1.bias, some, layer.linear1.weight.t(), out=hidden[: len(some)])
            torch.addmm(
                layer.linear2.bias, layer.activation(h), layer.linear2.weight.t(), out=out[begin : begin + ROWS]
            )
        return out.add_(x)


def _turn(x: Tensor, turn: Tensor) -> None:
    """Applies the rotary code in place. x: float32 or bfloat16 (L, D); turn: complex64 (L, D / 2)."""
    pairs = x.view(len(x), -1, 2)
    if x.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(turn)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()).mul_(turn)))


def _whole_squares(window: Window, height: int, width: int) -> Window:
    """A window grown to whole squares of SPARSE cells.

    Half-precision kernels are compiled and kept for each number of rows. Whole squares keep the number of kernels low.
    """
    x0, y0, x1, y1 = window
    up = [-(-end // SPARSE) * SPARSE for end in (x1, y1)]
    return x0 // SPARSE * SPARSE, y0 // SPARSE * SPARSE, min(width, up[0]), min(height, up[1])


def _rows_of(window: Window | None, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The cells to read, as rows of a flattened map; and for each cell of the map, the index of its row among them.

    Every cell in the window is read (all cells, if there is no window), and elsewhere the middle one of each square.
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    if window is None:
        inside = torch.ones(height, width, dtype=torch.bool)
    else:
        x0, y0, x1, y1 = window
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    middle = [(z // SPARSE * SPARSE + SPARSE // 2).clamp(max=size - 1) for z, size in ((y, height), (x, width))]
    read = torch.where(inside, y * width + x, middle[0] * width + middle[1]).flatten()
    rows, stands_for = torch.unique(read, return_inverse=True)
    return rows, stands_for


def can_read(model: Sam2VideoModel) -> bool:
    """Whether `MemoryReader` works for this model: on a CPU, with one head, as in every published checkpoint."""
    one_head = model.config.memory_attention_num_attention_heads == 1
    return one_head and model.device.type == "cpu" and model.dtype in (torch.float32, torch.bfloat16)
