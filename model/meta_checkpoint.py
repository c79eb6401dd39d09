"""Meta's own SAM 2 and 2.1 checkpoints (`sam2.1_hiera_tiny.pt` and the like) as weights of transformers' model.

A file holds {"model": tensors by name}, under the names of the modules of github.com/facebookresearch/sam2. The shape
of the model follows from the tensors. Only tensors are read: a pickle that holds other objects is rejected.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Sam2VideoConfig

from storage.wording import counted

# The published models, as arguments of transformers' backbone. Missing arguments have its defaults, which are tiny's.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
    "base-plus": {
        "hidden_size": 112,
        "embed_dim_per_stage": [112, 224, 448, 896],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "blocks_per_stage": [2, 3, 16, 3],
        "global_attention_blocks": [12, 16, 20],
        "window_positional_embedding_background_size": [14, 14],
    },
    "large": {
        "hidden_size": 144,
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "blocks_per_stage": [2, 6, 36, 4],
        "global_attention_blocks": [23, 33, 43],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}

# Patterns and replacements, applied in this order to the whole name. `name_of` computes <5/3+1>.
_NAMES = [
    (row.split()[0], row.split()[1])
    for row in r"""
        ^image_encoder\.trunk\.                                   vision_encoder.backbone.
        ^image_encoder\.neck\.convs\.(\d+)\.conv\.                vision_encoder.neck.convs.\1.
        ^sam_prompt_encoder\.                                     prompt_encoder.
        ^sam_mask_decoder\.                                       mask_decoder.
        \.patch_embed\.proj\.                                     .patch_embed.projection.
        \.pe_layer\.positional_encoding_gaussian_matrix$          .shared_embedding.positional_embedding
        ^(prompt_encoder)\.mask_downscaling\.([036])\.            \1.mask_embed.conv<\2/3+1>.
        ^(prompt_encoder)\.mask_downscaling\.([14])\.             \1.mask_embed.layer_norm<\2/3+1>.
        \.output_upscaling\.0\.                                   .upscale_conv1.
        \.output_upscaling\.1\.                                   .upscale_layer_norm.
        \.output_upscaling\.3\.                                   .upscale_conv2.
        \.mask_downsampler\.encoder\.12\.                         .mask_downsampler.final_conv.
        \.mask_downsampler\.encoder\.([0369])\.                   .mask_downsampler.layers.<\1/3>.conv.
        \.mask_downsampler\.encoder\.(1|4|7|10)\.                 .mask_downsampler.layers.<\1/3>.layer_norm.
        ^memory_encoder\.pix_feat_proj\.                          memory_encoder.feature_projection.
        ^memory_encoder\.out_proj\.                               memory_encoder.projection.
        ^memory_encoder\.fuser\.                                  memory_encoder.memory_fuser.
        \.dwconv\.                                                .depthwise_conv.
        \.pwconv(\d)\.                                            .pointwise_conv\1.
        \.gamma$                                                  .scale
        \.out_proj\.                                              .o_proj.
        \.norm(\d|_final_attn)?\.                                 .layer_norm\1.
        \.mlp\.layers\.0\.                                        .mlp.proj_in.
        \.mlp\.layers\.1\.                                        .mlp.proj_out.
        (_head|_mlps\.\d+|obj_ptr_proj)\.layers\.0\.              \1.proj_in.
        (_head|_mlps\.\d+|obj_ptr_proj)\.layers\.1\.              \1.layers.0.
        (_head|_mlps\.\d+|obj_ptr_proj)\.layers\.2\.              \1.proj_out.
        ^obj_ptr_proj\.                                           object_pointer_proj.
        ^obj_ptr_tpos_proj\.                                      temporal_positional_encoding_projection_layer.
        ^maskmem_tpos_enc$                                        memory_temporal_positional_encoding
        ^no_mem_embed$                                            no_memory_embedding
        ^no_mem_pos_enc$                                          no_memory_positional_encoding
        ^no_obj_ptr$                                              no_object_pointer
        ^no_obj_embed_spatial$                                    occlusion_spatial_embedding_parameter
    """.split("\n")
    if row.strip()
]
_POINTS = "sam_prompt_encoder.point_embeddings."  # four tensors in Meta's files, one in transformers


class NotMetas(Exception):
    """The file is not one of Meta's checkpoints. The message is one line."""


def config_of(shape: str, *, version: str = "2.1") -> Sam2VideoConfig:
    """transformers' configuration of a published model at 1024 px. shape: a key of SHAPES; version: "2" or "2.1"."""
    backbone = {"model_type": "sam2_hiera_det_model", **SHAPES[shape]}
    channels = SHAPES[shape].get("embed_dim_per_stage", [96, 192, 384, 768])
    return Sam2VideoConfig(
        vision_config={"backbone_config": backbone, "backbone_channel_list": channels[::-1]},
        enable_temporal_pos_encoding_for_object_pointers=version == "2.1",
        enable_occlusion_spatial_embedding=version == "2.1",
    )


def read(path: Path) -> tuple[Sam2VideoConfig, dict[str, Tensor]]:
    """The configuration and the weights of one of Meta's files, under transformers' names. Raises NotMetas."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about files of other formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise NotMetas(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # torch raises errors of many types, and its messages recommend to load without a check
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            raise NotMetas(
                f"{path} is refused: it holds Python objects, which can run code; only tensors load"
            ) from error
        raise NotMetas(f"{path} is damaged, or is no checkpoint that PyTorch saved") from error
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(
        isinstance(n, str) and isinstance(t, Tensor) for n, t in tensors.items()
    ):
        raise NotMetas(f'{path} has no tensors under "model"')
    version = "2.1" if "no_obj_embed_spatial" in tensors else "2"
    return config_of(_shape_of(path, tensors), version=version), renamed(tensors)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Meta's tensors under transformers' names."""
    found = {name_of(name): tensor for name, tensor in tensors.items() if not name.startswith(_POINTS)}
    points = [tensors[f"{_POINTS}{i}.weight"] for i in range(4) if f"{_POINTS}{i}.weight" in tensors]
    if points:
        found["prompt_encoder.point_embed.weight"] = torch.cat(points)
    frequencies = "positional_embedding"
    if f"prompt_encoder.shared_embedding.{frequencies}" in found:  # transformers keeps them twice
        found[f"shared_image_embedding.{frequencies}"] = found[f"prompt_encoder.shared_embedding.{frequencies}"]
    return found


def name_of(name: str) -> str:
    """transformers' name of one of Meta's tensors. An unknown name comes back unchanged, or changed in part."""
    for pattern, new in _NAMES:
        name = re.sub(pattern, new, name)
    # "<5/3+1>" turns the position of a module in a sequence into the number of its layer: 5 // 3 + 1
    return re.sub(r"<(\d+)/3(\+1)?>", lambda m: str(int(m[1]) // 3 + (1 if m[2] else 0)), name)


def _shape_of(path: Path, tensors: dict[str, Tensor]) -> str:
    stem = tensors.get("image_encoder.trunk.patch_embed.proj.weight")
    numbers = {int(m[1]) for name in tensors if (m := re.match(r"image_encoder\.trunk\.blocks\.(\d+)\.", name))}
    for shape, differs in SHAPES.items():
        blocks, width = sum(differs.get("blocks_per_stage", [1, 2, 7, 2])), differs.get("hidden_size", 96)
        if stem is not None and stem.shape[0] == width and numbers == set(range(blocks)):
            return shape
    blocks_found = counted(len(numbers), "block")
    width_found = "no patch embedding" if stem is None else counted(stem.shape[0], "channel")
    raise NotMetas(f"{path} is not a SAM 2 model of shape {', '.join(SHAPES)}: it has {width_found} and {blocks_found}")
