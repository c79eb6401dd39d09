"""Which weights a training stage changes: all of them, all but the image encoder, or the prompt and mask parts only."""

from __future__ import annotations

from typing import Literal

TrainedParts = Literal["all", "memory", "decoder"]

_ENCODER = ("vision_encoder",)
_DECODER = ("prompt_encoder", "mask_decoder", "object_pointer_proj", "no_object_pointer")


def in_encoder(name: str) -> bool:
    """Whether a parameter, by its name in the model, belongs to the image encoder."""
    return name.split(".")[0] in _ENCODER


def is_trained(name: str, parts: TrainedParts) -> bool:
    """Whether a stage that trains `parts` changes the parameter of this name.

    "all": every parameter.  "memory": every parameter but the image encoder's, so the memory and the decoder.
    "decoder": the prompt encoder, the mask decoder and the object pointers that it gives.
    """
    if parts == "all":
        return True
    if parts == "memory":
        return not in_encoder(name)
    return name.split(".")[0] in _DECODER
