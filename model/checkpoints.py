"""Checkpoints: find, load and save a SAM 2 video model.

The format is the folder of transformers' `Sam2VideoModel`: every published SAM 2 and 2.1 checkpoint loads by name, and
every checkpoint saved here loads in plain transformers. Knows nothing of videos, training or tracking. The `micro`
checkpoint is in the folder beside this file.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import torch
from torch import Tensor, nn
from transformers import Sam2VideoModel
from transformers.utils import logging as transformers_logging

from model import meta_checkpoint
from model.architecture import side_of
from model.clips import IMAGENET_MEAN, IMAGENET_STD
from storage.errors import first_line
from storage.wording import counted

MICRO = Path(__file__).parent / "micro"
_WANTED = ("*.json", "model*.safetensors")  # the files of a hub repository that loading needs


class NoCheckpoint(Exception):
    """No checkpoint of that name or path loads. The message is one line."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode, with its input size, its normalisation and its name."""

    model: Sam2VideoModel
    image_size: int  # px, side of the square input
    name: str  # as the caller gave it
    source: str  # the folder, or "repository@commit"
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of RGB in [0, 1]
    std: tuple[float, float, float] = IMAGENET_STD

    @cached_property
    def normalisation(self) -> tuple[Tensor, Tensor]:
        """`mean` and `std` as float32 (3, 1, 1) on the model's device. They are copied there once."""
        mean, std = (torch.tensor(of, device=self.device).view(3, 1, 1) for of in (self.mean, self.std))
        return mean, std

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype


def model_card(title: str, text: str, facts: Mapping[str, object] | None = None) -> str:
    """The README.md of a checkpoint: a title, what it is, facts as a list, and how to load it."""
    listed = "".join(f"- {name}: {value}\n" for name, value in (facts or {}).items())
    parts = [f"# {title}", text.strip(), listed.strip(), "Loads with `transformers.Sam2VideoModel.from_pretrained`."]
    return "\n\n".join(part for part in parts if part) + "\n"


def save(
    model: Sam2VideoModel,
    folder: Path | str,
    *,
    card: str,
    meta: Mapping[str, Any],
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Path:
    """Write a checkpoint in transformers' format, with its preprocessor, a model card and `meta.json`.

    Files are written to a temporary folder and then moved one by one, `meta.json` last: a folder with a `meta.json` is
    complete.
    card: Markdown of README.md, see `model_card`.  meta: how the weights were made, as values that JSON can hold.
    Returns the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    apart = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder.parent))
    try:
        with _quiet():
            model.save_pretrained(apart)
        for name, content in _preprocessors(side_of(model), mean, std).items():
            (apart / name).write_text(json.dumps(content, indent=2) + "\n")
        (apart / "README.md").write_text(card)
        (apart / "meta.json").write_text(json.dumps(dict(meta), indent=2, sort_keys=True) + "\n")
        for file in sorted(apart.iterdir(), key=lambda file: file.name == "meta.json"):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(apart, ignore_errors=True)
    return folder


def load(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str = torch.float32,
) -> LoadedModel:
    """Load a checkpoint: "micro", a local folder, a hub name such as "facebook/sam2.1-hiera-tiny", or one of Meta's own
    files such as "sam2.1_hiera_tiny.pt".

    A hub name is looked up in the local cache first, then downloaded unless HF_HUB_OFFLINE is set.
    dtype: torch's, or its name.
    Raises NoCheckpoint, whose message names what was searched and where.
    """
    name = str(name_or_path)
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if name.endswith((".pt", ".pth")):
        model = _from_meta(Path(name).expanduser())
        _check_finite(model, name)
        return wrap(nn.Module.to(model, device, dtype), name=name, source=name)
    folder, source = _find(name)
    _check_sizes(folder)
    try:
        with _quiet():
            # the library's types do not know that it returns a pair here
            found: Any = Sam2VideoModel.from_pretrained(
                folder, dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
            model, missing = found[0], sorted(found[1]["missing_keys"])
    except Exception as error:  # a damaged file makes the library raise errors of many types
        raise NoCheckpoint(f"the checkpoint at {folder} does not load: {_reason(error)}") from error
    for name_of, stored, wanted in sorted(found[1]["mismatched_keys"]):  # refused here, in one line
        raise NoCheckpoint(
            f"the checkpoint at {folder} does not fit its config.json: {name_of} is {tuple(stored)} instead of "
            f"{tuple(wanted)}"
        )
    if missing:  # the library would silently draw them at random
        raise NoCheckpoint(f"{folder} is not a SAM 2 video checkpoint: it lacks {_first_of(missing)}")
    _check_finite(model, str(folder))
    mean, std = _normalisation(folder)
    return wrap(nn.Module.to(model, device), name=name, source=source, mean=mean, std=std)


def _check_sizes(folder: Path) -> None:
    """Raises NoCheckpoint for an input that is no square of pixels. transformers checks the rest of config.json."""

    def sizes(config: Any) -> Iterator[Any]:
        for key, value in config.items() if isinstance(config, dict) else ():
            if key == "image_size" and isinstance(value, int | list):
                yield value
            yield from sizes(value)

    file = folder / "config.json"
    try:
        found = list(sizes(json.loads(file.read_text())))
    except (OSError, ValueError, RecursionError):
        return
    for size in found:
        sides = size if isinstance(size, list) else [size, size]
        if len(sides) != 2 or sides[0] != sides[1] or type(sides[0]) is not int or sides[0] < 1:
            raise NoCheckpoint(f"{file} is damaged: image_size is {size}, not a whole number of pixels")


def _check_finite(model: nn.Module, place: str) -> None:
    """Raises NoCheckpoint for weights that are NaN or infinite: such a model gives empty masks instead of an error."""
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise NoCheckpoint(f"the checkpoint at {place} is damaged: {name} has values that are not finite")


def _from_meta(path: Path) -> Sam2VideoModel:
    """The model in one of Meta's files. Raises NoCheckpoint."""
    if not path.is_file():
        raise NoCheckpoint(f"no checkpoint {path}: no such file")
    try:
        config, tensors = meta_checkpoint.read(path)
    except meta_checkpoint.NotMetas as error:
        raise NoCheckpoint(str(error)) from error
    model = Sam2VideoModel(config)
    own = model.state_dict()
    for problem, names in (("lacks", own.keys() - tensors.keys()), ("has unknown", tensors.keys() - own.keys())):
        if names:
            raise NoCheckpoint(f"the checkpoint at {path} {problem} {_first_of(sorted(names))}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
            raise NoCheckpoint(f"the checkpoint at {path} does not fit: {name} is {shapes}")
    model.load_state_dict(tensors)
    return model


def _reason(error: Exception) -> str:
    """An error of a library in one short line, with its type."""
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 160, placeholder=' ...')}"


def wrap(
    model: Sam2VideoModel,
    *,
    name: str,
    source: str = "memory",
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> LoadedModel:
    """A model in memory, put into evaluation mode and ready for the predictor and the tracker."""
    model = model.train(False)
    return LoadedModel(model=model, image_size=side_of(model), name=name, source=source, mean=mean, std=std)


def _find(name: str) -> tuple[Path, str]:
    """The local folder of a checkpoint, and its source as `LoadedModel` names it."""
    if name == "micro":
        if _is_whole(MICRO):
            return MICRO, str(MICRO)
        raise NoCheckpoint(f"no checkpoint 'micro': looked in {MICRO}")
    folder = Path(name).expanduser()
    if _is_whole(folder):
        return folder, str(folder)
    if folder.exists():
        raise NoCheckpoint(f"no checkpoint in {folder}: config.json and model.safetensors are needed")
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise NoCheckpoint(f"no checkpoint {name!r}: no such folder, and not a name like 'owner/model'")
    cache = huggingface_hub.constants.HF_HUB_CACHE
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    trouble = "HF_HUB_OFFLINE is set"
    for local_only in (True,) if offline else (True, False):
        try:
            found = huggingface_hub.snapshot_download(name, allow_patterns=list(_WANTED), local_files_only=local_only)
        except (OSError, ValueError, httpx.HTTPError) as error:
            trouble = trouble if offline else first_line(error)
            continue
        if _is_whole(Path(found)):
            return Path(found), f"{name}@{Path(found).name}"
        trouble = trouble if offline else "the repository has no config.json with safetensors weights"
    raise NoCheckpoint(f"no checkpoint {name!r}: not in the hub cache {cache}, and not downloaded ({trouble})")


def _is_whole(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))


def _normalisation(folder: Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and std from the checkpoint's preprocessor; ImageNet's if it has none. Raises NoCheckpoint."""
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        file = folder / name
        if file.is_file():
            try:
                content = json.loads(file.read_text())
                if not isinstance(content, dict):
                    raise ValueError(f"a JSON object is needed, not {type(content).__name__}")
                if "image_mean" in content and "image_std" in content:
                    return _triple(content["image_mean"], above=-math.inf), _triple(content["image_std"], above=0)
            except (OSError, ValueError, TypeError) as error:
                raise NoCheckpoint(f"{file} is damaged: {_reason(error)}") from error
    return IMAGENET_MEAN, IMAGENET_STD


def _triple(values: list[float], above: float) -> tuple[float, float, float]:
    """Three finite numbers above a limit. Raises ValueError or TypeError."""
    red, green, blue = (float(value) for value in values)
    if not all(math.isfinite(value) and value > above for value in (red, green, blue)):
        raise ValueError(f"three finite numbers above {above} expected, got {values}")
    return red, green, blue


def _preprocessors(
    image_size: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> dict[str, dict[str, Any]]:
    """The files from which transformers makes its processors. The library itself needs torchvision to write them."""
    common: dict[str, Any] = {
        "processor_class": "Sam2VideoProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": image_size, "width": image_size},
    }
    mask_size = {"height": image_size // 4, "width": image_size // 4}
    return {
        "preprocessor_config.json": common | {"image_processor_type": "Sam2ImageProcessor", "mask_size": mask_size},
        "video_preprocessor_config.json": common | {"video_processor_type": "Sam2VideoVideoProcessor"},
        "processor_config.json": {
            "processor_class": "Sam2VideoProcessor",
            "point_pad_value": -10,
            "target_size": image_size,
        },
    }


def _first_of(names: Sequence[str]) -> str:
    """The first name, and how many others there are."""
    return f"{names[0]} and {counted(len(names) - 1, 'more tensor')}" if len(names) > 1 else names[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences transformers' progress bars and notices: a library must not print."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the library has no type here
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # the library has no type here
