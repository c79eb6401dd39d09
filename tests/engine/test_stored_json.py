"""Records in the store's JSON."""

from dataclasses import dataclass

import pytest
from pydantic import TypeAdapter

from engine.stored_json import parse
from storage.blobs.base import BlobDamaged


@dataclass(frozen=True)
class Row:
    names: tuple[str, ...]


ROWS = TypeAdapter(Row)


@pytest.mark.parametrize("value", [b'{"names": ["a"]}', {"names": ["a"]}])
def test_a_record_is_read_from_bytes_and_from_json_that_was_read_already(value):
    assert parse(ROWS, value, "rows/1.json") == Row(("a",))


@pytest.mark.parametrize("value", [b'{"names": [1]}', {"names": [1]}])
def test_an_invalid_record_is_damaged_and_the_error_says_where(value):
    with pytest.raises(BlobDamaged, match=r"^rows/1\.json: names\.0 Input should be a valid string$"):
        parse(ROWS, value, "rows/1.json")


def test_bytes_that_are_not_json_are_damaged():
    with pytest.raises(BlobDamaged, match=r"^rows/1\.json: Invalid JSON"):
        parse(ROWS, b"{", "rows/1.json")
