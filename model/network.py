"""SAM 2's steps as plain functions over the modules of transformers' `Sam2VideoModel`: differentiable and batched.

The library's own entry points run without gradients and one object at a time. These functions call the same submodules
with the same arithmetic, for the trainer and the tracker. They rely on how transformers 5.23 arranges its modules.
Knows nothing of videos, sessions or people's prompts.

Shapes: the batch B is over objects, of one frame or of several; P clicks; h, w = image_size / 16; mask logits are at
image_size / 4.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Sam2VideoModel

NO_OBJECT_LOGIT = -1024.0  # the mask logit of an absent object, as in the released model


@dataclass(frozen=True)
class Features:
    """The image encoder's output for B images.

    high_res: the stride-4 and stride-8 maps, projected for the mask decoder, float (B, C, 4h, 4w) and (B, C, 2h, 2w).
    top: the stride-16 map without any memory, float (B, C, h, w).  top_position: its sine code, same shape.
    """

    high_res: tuple[Tensor, Tensor]
    top: Tensor
    top_position: Tensor

    def select(self, index: Tensor) -> Features:
        """The features of the images `index`, int64 (B',), repeated where an index repeats."""
        a, b = self.high_res
        return Features((a[index], b[index]), self.top[index], self.top_position[index])


@dataclass(frozen=True)
class Clicks:
    """Points of B objects in pixels of the model's square input. labels: 1, 0, box corners 2 and 3, -10 for padding."""

    xy: Tensor  # float (B, P, 2)
    labels: Tensor  # int (B, P)


@dataclass(frozen=True)
class Decoded:
    """The mask decoder's answer for B objects. K is 3 where a prompt may be ambiguous and 1 otherwise."""

    all_logits: Tensor  # float (B, K, 4h, 4w), before absence is applied
    all_iou: Tensor  # float (B, K)
    all_pointers: Tensor  # float (B, K, C), before absence is applied
    logits: Tensor  # float (B, 4h, 4w), the mask of the best estimated IoU; NO_OBJECT_LOGIT where the object is absent
    iou: Tensor  # float (B,)
    object_score: Tensor  # float (B,), > 0 is present
    pointer: Tensor  # float (B, C)

    def select(self, rows: Tensor | slice) -> Decoded:
        """The answers of these rows, a slice or int64 (B',)."""
        return Decoded(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class FrameMemory:
    """The memory of one frame for B objects."""

    features: Tensor  # float (B, 64, h, w)
    position: Tensor  # float (1 or B, 64, h, w)
    pointer: Tensor  # float (B, C)


def encode_images(model: Sam2VideoModel, pixels: Tensor) -> Features:
    """Runs the image encoder once. pixels: float (B, 3, S, S), normalised."""
    steps = encoding(model, pixels)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            features: Features = end.value
            return features


def encoding(model: Sam2VideoModel, pixels: Tensor) -> Generator[None, None, Features]:
    """`encode_images` in steps, one for each block of the encoder. Between steps a thread may do more urgent work."""
    backbone, neck, decoder = model.vision_encoder.backbone, model.vision_encoder.neck, model.mask_decoder
    x = backbone.patch_embed(pixels)
    x = x + backbone._get_pos_embed(x.shape[1:3])
    stages = []  # (B, h, w, C) each, finest first
    for i, block in enumerate(backbone.blocks):
        x = block(x)
        if i in backbone.stage_ends:
            stages.append(x)
        yield
    above: Tensor | None = None
    maps = []
    for level in range(len(stages) - 1, -1, -1):
        here = _pointwise(neck.convs[len(stages) - 1 - level], stages[level])
        if above is not None and level in neck.fpn_top_down_levels:
            here = here + above.repeat_interleave(2, 1).repeat_interleave(2, 2)
        above = here
        maps.append(here)
    fine, mid, top = maps[-1], maps[-2], maps[-3].permute(0, 3, 1, 2).contiguous()
    high_res = [_pointwise(c, m).permute(0, 3, 1, 2) for c, m in ((decoder.conv_s0, fine), (decoder.conv_s1, mid))]
    return Features(
        (high_res[0].contiguous(), high_res[1].contiguous()),
        top,
        neck.position_encoding(top.shape, top.device, top.dtype).to(top.dtype).expand(len(top), -1, -1, -1),
    )


def _pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1 x 1 convolution as a matrix product, which is faster on a CPU: (B, h, w, C) -> (B, h, w, C')."""
    if conv.kernel_size != (1, 1):
        convolved: Tensor = conv(x.permute(0, 3, 1, 2))
        return convolved.permute(0, 2, 3, 1)
    return F.linear(x, conv.weight[:, :, 0, 0], conv.bias)


def without_memory(model: Sam2VideoModel, features: Features) -> Tensor:
    """The top map of a frame that reads no memory: float (B, C, h, w)."""
    return features.top + model.no_memory_embedding.view(1, -1, 1, 1)


def decode(
    model: Sam2VideoModel,
    features: Features,
    top: Tensor,
    clicks: Clicks | None,
    previous_logits: Tensor | None = None,
    *,
    multimask: bool,
) -> Decoded:
    """Prompt encoder and mask decoder. top: float (B, C, h, w). previous_logits: float (B, 4h, 4w)."""
    batch = top.shape[0]
    if clicks is None:  # the decoder always needs a token: this one means "not a point"
        xy, labels = top.new_zeros(batch, 1, 1, 2), torch.full((batch, 1, 1), -1, dtype=torch.int32, device=top.device)
    else:
        xy, labels = clicks.xy[:, None], clicks.labels[:, None]
    mask = None if previous_logits is None else previous_logits[:, None]
    sparse, dense = model.prompt_encoder(input_points=xy, input_labels=labels, input_boxes=None, input_masks=mask)
    position = model.get_image_wide_positional_embeddings()
    logits, iou, tokens, score = model.mask_decoder(
        image_embeddings=top,
        image_positional_embeddings=position.expand(batch, -1, -1, -1),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
        high_resolution_features=list(features.high_res),
    )
    logits, iou, tokens, score = logits[:, 0], iou[:, 0], tokens[:, 0], score[:, 0, 0]
    best, rows = iou.argmax(-1), torch.arange(batch, device=iou.device)
    present = score > 0
    pointers = model.object_pointer_proj(tokens).expand(-1, iou.shape[1], -1)
    return Decoded(
        all_logits=logits,
        all_iou=iou,
        all_pointers=pointers,
        logits=torch.where(present[:, None, None], logits[rows, best], NO_OBJECT_LOGIT),
        iou=iou[rows, best],
        object_score=score,
        pointer=torch.where(present[:, None], pointers[rows, best], model.no_object_pointer),
    )


def take_mask(model: Sam2VideoModel, features: Features, mask: Tensor) -> tuple[Decoded, Tensor]:
    """Takes a given mask as the answer of the frame. The decoder only makes the object pointer.

    mask: float (B, S, S) in {0, 1} (or in between, at soft borders). Returns the answer and its full-size logits
    (B, S, S): the low-resolution ones are too coarse for the memory.
    """
    full = mask * 20.0 - 10.0
    side = model.prompt_encoder.mask_input_size
    low = low_logits(model, full)
    small = model.mask_downsample(mask[:, None])[:, 0]
    if small.shape[-2:] != tuple(side):
        small = _shrunk(small, side)
    seen = decode(model, features, features.top, None, small, multimask=True)
    present = mask.flatten(1).amax(1) > 0
    pointer = torch.where(present[:, None], seen.pointer, model.no_object_pointer)
    return (
        Decoded(
            all_logits=low[:, None],
            all_iou=torch.ones_like(low[:, 0, :1]),
            all_pointers=pointer[:, None],
            logits=low,
            iou=torch.ones_like(low[:, 0, 0]),
            object_score=present.to(low.dtype) * 20.0 - 10.0,
            pointer=pointer,
        ),
        full,
    )


def low_logits(model: Sam2VideoModel, full: Tensor) -> Tensor:
    """Mask logits as the decoder gives them: float (B, S, S) -> (B, 4h, 4w)."""
    return _shrunk(full, model.prompt_encoder.mask_input_size)


def _shrunk(maps: Tensor, hw: Sequence[int]) -> Tensor:
    """Maps float (B, H, W) at a smaller size, antialiased. In float32: a CPU has no half-precision version."""
    small = F.interpolate(maps[:, None].float(), size=tuple(hw), mode="bilinear", align_corners=False, antialias=True)
    return small[:, 0].to(maps.dtype)


def upsample(model: Sam2VideoModel, logits: Tensor) -> Tensor:
    """Mask logits at the model's input size: float (B, 4h, 4w) -> (B, S, S)."""
    side = [4 * s for s in model.prompt_encoder.mask_input_size]
    return F.interpolate(logits[:, None], size=side, mode="bilinear", align_corners=False)[:, 0]


def encode_memory(
    model: Sam2VideoModel, top: Tensor, full_logits: Tensor, decoded: Decoded, *, binarise: bool
) -> FrameMemory:
    """The memory of a frame. top: float (B, C, h, w) without memory; full_logits: float (B, S, S).

    binarise: whether the mask enters as 0 or 1 (prompted frames, at inference) or as probabilities.
    """
    config = model.config
    mask = (full_logits > 0).to(full_logits.dtype) if binarise else torch.sigmoid(full_logits)
    mask = mask * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
    features, position = model.memory_encoder(top, mask[:, None])
    if model.occlusion_spatial_embedding_parameter is not None:
        absent = (decoded.object_score <= 0).to(features.dtype)
        features = features + (absent[:, None] * model.occlusion_spatial_embedding_parameter)[..., None, None]
    return FrameMemory(features, position, decoded.pointer)


def attend_to_memory(
    model: Sam2VideoModel,
    features: Features,
    spatial: Sequence[tuple[int, FrameMemory]],
    pointers: Sequence[tuple[int, Tensor]],
    *,
    pointer_span: int,
) -> Tensor:
    """The top map of a frame, combined with memories: float (B, C, h, w).

    spatial: (frames back, memory); 0 stands for a prompted frame, at any distance.  pointers: (frames back, (B, C)),
    negative for later frames.  pointer_span: the number of frames that pointers may span; offsets are scaled by it.
    """
    batch, channels, height, width = features.top.shape
    keys = [m.features.flatten(2).permute(2, 0, 1) for _, m in spatial]
    codes = [
        (m.position.flatten(2).permute(2, 0, 1) + model.memory_temporal_positional_encoding[back - 1]).expand(
            -1, batch, -1
        )
        for back, m in spatial
    ]
    tokens = 0
    if pointers:
        stacked = torch.stack([p for _, p in pointers])  # (K, B, C)
        code = pointer_code(model, [back for back, _ in pointers], pointer_span)
        splits = channels // model.mem_dim
        stacked = stacked.view(len(pointers), batch, splits, model.mem_dim).permute(0, 2, 1, 3).flatten(0, 1)
        keys.append(stacked)
        codes.append(code[:, None].expand(-1, batch, -1).repeat_interleave(splits, dim=0))
        tokens = stacked.shape[0]
    out = model.memory_attention(
        current_vision_features=features.top.flatten(2).permute(2, 0, 1),
        current_vision_position_embeddings=features.top_position.flatten(2).permute(2, 0, 1),
        memory=torch.cat([k.to(features.top.dtype) for k in keys]),
        memory_posision_embeddings=torch.cat(codes),
        num_object_pointer_tokens=tokens,
    )
    return _to_map(out, batch, channels, height, width)


def pointer_code(model: Sam2VideoModel, back: Sequence[int], span: int) -> Tensor:
    """The code of the age of object pointers: float (P, 64). SAM 2 has none, only 2.1 does: zeros."""
    if not back or not model.config.enable_temporal_pos_encoding_for_object_pointers:
        return torch.zeros(len(back), model.mem_dim, device=model.device, dtype=model.dtype)
    dim = model.config.memory_attention_hidden_size
    sines = torch.cat([_age_sine(age, span, dim, model.device) for age in back])
    code: Tensor = model.temporal_positional_encoding_projection_layer(sines.to(model.dtype))
    return code


@lru_cache(maxsize=4096)
def _age_sine(age: int, span: int, dim: int, device: torch.device) -> Tensor:
    """The sine code of one age: float (1, dim). Computed on the device and kept there: no frame uploads its ages."""
    return _sine(torch.full((1,), float(age), device=device) / max(span - 1, 1), dim)


def _to_map(out: Tensor, batch: int, channels: int, height: int, width: int) -> Tensor:
    """Undoes the library's layout: (h*w or 1, B, h*w, C), in any order of the first axes -> (B, C, h, w)."""
    return out.reshape(batch, height * width, channels).transpose(1, 2).reshape(batch, channels, height, width)


def _sine(position: Tensor, dim: int) -> Tensor:
    """The one-dimensional sine code of Vaswani et al. 2017, sines before cosines: float (K,) -> (K, dim)."""
    half = torch.arange(dim // 2, dtype=torch.float32, device=position.device)
    angle = position[:, None] / 10000 ** (2 * torch.div(half, 2, rounding_mode="floor") / (dim // 2))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
