"""JSON in the store as records: an invalid one is reported with the key of its blob."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from storage.blobs.base import BlobDamaged

T = TypeVar("T")


def parse(kind: TypeAdapter[T], value: object, key: str) -> T:
    """The record in a blob. value: the blob's bytes, or the JSON already read from it. Raises BlobDamaged."""
    try:
        return kind.validate_json(value) if isinstance(value, bytes) else kind.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BlobDamaged(f"{key}: {place} {first['msg']}" if place else f"{key}: {first['msg']}") from error
