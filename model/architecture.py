"""The architecture: a SAM 2 video model of a given shape, its initial weights, and copies for other input sizes.

Knows nothing of files, videos or training.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Sam2VideoConfig, Sam2VideoModel

MEMORY_CHANNELS = 64  # fixed inside transformers' memory attention


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a new model. The defaults are those of `micro`."""

    image_size: int = 256  # px, side of the square input; a multiple of 32 and of 4 * windows[0]
    embed_dim: int = 32  # channels of the first Hiera stage; each stage doubles them
    blocks: tuple[int, int, int, int] = (1, 2, 3, 1)
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    windows: tuple[int, int, int, int] = (8, 4, 8, 4)  # window sides of local attention, in tokens
    global_blocks: tuple[int, ...] | None = None  # blocks with global attention; None: the last of the third stage
    hidden: int = 128  # channels of features, tokens and object pointers; a multiple of 64 above 64
    decoder_heads: int = 8
    decoder_mlp: int = 256
    memory_layers: int = 2
    memory_mlp: int = 512
    dropout: float = 0.1  # of the memory attention, in training only
    num_maskmem: int = 7  # 1 conditioning + 6 recent
    max_object_pointers: int = 16


def build(shape: Shape | None = None) -> Sam2VideoModel:
    """A model of this shape with the library's own initial weights. To train it, call `init_weights` first.

    Raises ValueError if the sizes do not fit together.
    """
    return Sam2VideoModel(config_of(shape or Shape()))


def config_of(shape: Shape) -> Sam2VideoConfig:
    """transformers' configuration for a shape, consistent at any image size."""
    dims = [shape.embed_dim * 2**stage for stage in range(4)]
    if shape.hidden % MEMORY_CHANNELS or shape.hidden <= MEMORY_CHANNELS:
        raise ValueError(f"hidden must be a multiple of {MEMORY_CHANNELS} above it, got {shape.hidden}")
    pooled = [sum(shape.blocks[:stage]) for stage in (1, 2, 3)]  # blocks that halve the map
    global_blocks = (sum(shape.blocks[:3]) - 1,) if shape.global_blocks is None else shape.global_blocks
    for block in global_blocks:
        if block in pooled or not 0 <= block < sum(shape.blocks):
            raise ValueError(f"global attention is impossible in block {block}: blocks {shape.blocks} pool in {pooled}")
    config = Sam2VideoConfig(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": shape.embed_dim,
                "num_attention_heads": shape.heads[0],
                "blocks_per_stage": list(shape.blocks),
                "embed_dim_per_stage": dims,
                "num_attention_heads_per_stage": list(shape.heads),
                "window_size_per_stage": list(shape.windows),
                "global_attention_blocks": list(global_blocks),
            },
            "backbone_channel_list": dims[::-1],
            "fpn_hidden_size": shape.hidden,
        },
        prompt_encoder_config={"hidden_size": shape.hidden},
        mask_decoder_config={
            "hidden_size": shape.hidden,
            "mlp_dim": shape.decoder_mlp,
            "num_attention_heads": shape.decoder_heads,
            "iou_head_hidden_dim": shape.hidden,
        },
        num_maskmem=shape.num_maskmem,
        max_object_pointers_in_encoder=shape.max_object_pointers,
        memory_attention_hidden_size=shape.hidden,
        memory_attention_num_layers=shape.memory_layers,
        memory_attention_feed_forward_hidden_size=shape.memory_mlp,
        memory_attention_dropout=shape.dropout,
        memory_attention_rope_dropout=shape.dropout,
        memory_encoder_hidden_size=shape.hidden,
        memory_encoder_output_channels=MEMORY_CHANNELS,
        mask_downsampler_embed_dim=shape.hidden,
        memory_fuser_embed_dim=shape.hidden,
        memory_fuser_intermediate_dim=4 * shape.hidden,
    )
    return resized_config(config, shape.image_size)


def resized_config(config: Sam2VideoConfig, image_size: int) -> Sam2VideoConfig:
    """The same configuration for another side of the square input, in px."""
    new = copy.deepcopy(config)
    vision: Any = new.vision_config  # the library's type allows a dict, which it never is here
    prompt: Any = new.prompt_encoder_config
    step = max(32, 4 * vision.backbone_config.window_size_per_stage[0])
    if image_size <= 0 or image_size % step:
        raise ValueError(f"image_size must be a positive multiple of {step}, got {image_size}")
    new.image_size = prompt.image_size = image_size
    vision.backbone_config.image_size = [image_size, image_size]
    vision.backbone_feature_sizes = [[image_size // stride] * 2 for stride in (4, 8, 16)]
    new.memory_attention_rope_feat_sizes = [image_size // 16] * 2
    return new


def resized(model: Sam2VideoModel, image_size: int) -> Sam2VideoModel:
    """A copy of the model for another input side, with the same weights, device, dtype and mode.

    No weight depends on the input size: positions are interpolated, computed or convolved.
    """
    with torch.random.fork_rng(devices=[]):
        new = type(model)(resized_config(model.config, image_size))
    new.load_state_dict(model.state_dict())
    moved: Sam2VideoModel = nn.Module.to(new, device=model.device, dtype=model.dtype)
    moved.train(model.training)
    return moved


def side_of(model: Sam2VideoModel) -> int:
    """The side of the model's square input in px."""
    size = model.config.image_size
    return size if isinstance(size, int) else size[0]


def init_weights(model: Sam2VideoModel, seed: int, *, embedding_std: float = 0.02) -> None:
    """Sets initial weights from which training succeeds; in place, and the same for the same seed.

    Linear layers and convolutions get PyTorch's defaults, layer scales get 0.1. Embeddings and all other
    parameters are drawn with `embedding_std`; the library leaves many of them at zero. Clicks get the Fourier
    frequencies of the image grid: the library draws the two independently, so a click would not know its place on the
    image.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        done: set[int] = set()
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.LayerNorm):
                module.reset_parameters()
                done.update(id(p) for p in module.parameters(recurse=False))
        for name, parameter in model.named_parameters():
            if ".memory_fuser." in name and name.endswith(".scale"):
                parameter.fill_(0.1)
            elif id(parameter) not in done:
                parameter.normal_(std=embedding_std)
        frequencies = model.shared_image_embedding.positional_embedding
        frequencies.normal_(std=model.shared_image_embedding.scale)
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(frequencies)
