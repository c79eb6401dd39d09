"""What a folder for the Hugging Face Hub says about itself: the card with its YAML head, and croissant.json.

The head tells `datasets.load_dataset` and the Hub's viewer where each split is. Croissant (mlcommons.org) describes the
same columns for other loaders and for search engines. Does not know masks: see `storage/formats/hub.py`.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.progress import Progress
from engine.services import Services
from engine.views import card, figures
from engine.views.figures import ALL
from storage import arrow
from storage.dataset.releases import Release
from storage.formats import destination, hub
from storage.formats.timeline import Timeline
from storage.whole_files import complete

CARD, CROISSANT = "README.md", "croissant.json"
_SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))
_LARGER = "10M<n<100M"


class BadCroissant(ValueError):
    """The description in Croissant is not valid."""


def describe(
    s: Services, release: Release, folder: Path, line: Timeline = Timeline.STORED, progress: Progress | None = None
) -> list[Path]:
    """Writes the card and croissant.json into a folder that `storage.formats.hub.export` has filled.

    Raises ValueError if mlcroissant is not installed, BadCroissant, ReleaseError, BlobError.
    """
    found = figures.of(release, s.tables, progress)
    splits, licence = destination.splits(release), s.settings.storage.license
    text = _head(release, splits, found.groups[ALL].masklets, licence)
    text += card.write(s, release, found, reading=_reading(splits[0], line))
    described = _croissant(release, splits, licence, videos=(folder / hub.VIDEOS).is_dir())
    paths = []
    for name, content in ((CARD, text), (CROISSANT, described)):
        path = destination.place(folder, name)
        with complete(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
        paths.append(path)
    return paths


def _head(release: Release, splits: Sequence[str], masklets: int, licence: str | None) -> str:
    """The YAML of the card, between its two lines of dashes. Texts are written as JSON: that is YAML, too."""
    size = next((name for name, end in _SIZES if masklets < end), _LARGER)
    lines = [
        "---",
        f"pretty_name: {json.dumps(release.name)}",
        *([f"license: {json.dumps(licence)}"] if licence else []),
        "task_categories:",
        "- mask-generation",
        "- image-segmentation",
        "tags:",
        "- video",
        "- video-object-segmentation",
        "- masklets",
        "size_categories:",
        f"- {size}",
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for split in splits:
        lines += [f"  - split: {json.dumps(split)}", f"    path: {json.dumps(f'{hub.DATA}/{split}/*.parquet')}"]
    return "\n".join([*lines, "---", "", ""])


def _reading(split: str, line: Timeline) -> str:
    whose = {
        Timeline.STORED: "the video of the dataset, which has 24 a second",
        Timeline.SOURCE: "the file that was handed in, in the order in which a player shows them",
    }
    rows = "\n".join(f"| `{name}` | {meaning} |" for name, (_, meaning) in hub.COLUMNS.items())
    return _READING.format(split=split, whose=whose[line], rows=rows)


def _croissant(release: Release, splits: Sequence[str], licence: str | None, *, videos: bool) -> str:
    """The description as JSON, made and checked by mlcroissant. Raises ValueError, BadCroissant."""
    mlc = _mlcroissant()
    tables = mlc.FileSet(
        id="parquet", name="parquet", encoding_formats=["application/x-parquet"], includes=[f"{hub.DATA}/*/*.parquet"]
    )
    films = mlc.FileSet(id="videos", name="videos", encoding_formats=["video/mp4"], includes=[f"{hub.VIDEOS}/*/*.mp4"])
    fields = [_field(mlc, column, hub.COLUMNS[column.name][1]) for column in arrow.schema(hub.ROW)]
    meaning = f"the masks of an object through a video; splits: {', '.join(splits)}"
    try:
        made = mlc.Metadata(
            name=release.name,
            description=f"{release.name}, made by masklet-engine: objects of videos, each with its masks",
            license=[licence] if licence else None,
            version=None,
            distribution=[tables, films] if videos else [tables],
            record_sets=[mlc.RecordSet(id="masklets", name="masklets", description=meaning, fields=fields)],
        )
        found = made.to_json()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # rdflib 7 about its own class
            mlc.Dataset(jsonld=found)
    except mlc.ValidationError as error:
        raise BadCroissant(f"{release.name}: {' '.join(str(error).split())}") from error
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _mlcroissant() -> Any:
    """The library. Its warnings about fields that it only recommends are not printed."""
    try:
        import mlcroissant
    except ImportError as error:
        raise ValueError("--format hf and push need mlcroissant: pip install 'masklet-engine[hub]'") from error
    logging.getLogger("absl").setLevel(logging.ERROR)
    return mlcroissant


def _field(mlc: Any, column: pa.Field, meaning: str) -> Any:
    is_list = pa.types.is_list(column.type)
    value = column.type.value_type if is_list else column.type
    kinds = mlc.DataType
    kind = kinds.TEXT if pa.types.is_string(value) else kinds.FLOAT if pa.types.is_floating(value) else kinds.INTEGER
    return mlc.Field(
        id=f"masklets/{column.name}",
        name=column.name,
        description=meaning,
        data_types=[kind],
        source=mlc.Source(file_set="parquet", extract=mlc.Extract(column=column.name)),
        **({"is_array": True, "array_shape": "-1"} if is_list else {}),
    )


_READING = """```python
import datasets
from pycocotools import mask

rows = datasets.load_dataset("FOLDER or OWNER/NAME", split="{split}")
row = rows[0]
size = [row["height"], row["width"]]
masks = [mask.decode({{"size": size, "counts": counts.encode()}}) for counts in row["rle"]]  # uint8 (height, width)
```

A row is a masklet. `frame_idx` counts frames of {whose}.

| column | what it holds |
|---|---|
{rows}

Pseudonyms of people hold in this dataset only; authors of videos keep theirs in all datasets of the same store.
`croissant.json` describes the same columns."""
