"""Smaller manifests: many entries in one Avro block.

pyiceberg 0.12 writes and compresses each entry of a manifest as a block of its own, though entries differ in a few
bytes only: a data file then costs 290 bytes in each manifest that lists it, in place of 60. Avro allows any number of
entries in a block, so every reader of Iceberg reads both.
"""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

from pyiceberg import manifest
from pyiceberg.avro.file import AvroOutputFile
from pyiceberg.typedef import StructProtocol

D = TypeVar("D", bound=StructProtocol)
BLOCK = 256  # entries: about 80 KB before compression; each block is held in memory


class BlockedAvroFile(AvroOutputFile[D]):
    """An Avro file that gathers what is written to it until a block is full."""

    def __enter__(self) -> BlockedAvroFile[D]:
        self._waiting = list[D]()
        super().__enter__()
        return self

    def write_block(self, objects: list[D]) -> None:
        self._waiting += objects
        if len(self._waiting) >= BLOCK:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._waiting and kind is None:
                self._flush()
        finally:
            super().__exit__(kind, error, trace)

    def _flush(self) -> None:
        full, self._waiting = self._waiting, []
        super().write_block(full)


def install() -> None:
    """Lets pyiceberg write manifests so in this process: its writers take no other class as an argument."""
    manifest.AvroOutputFile = BlockedAvroFile  # type: ignore[attr-defined]  # imported there, not exported
