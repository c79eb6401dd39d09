"""The pages of the Data Docs, drawn by Great Expectations, with their templates compiled once in a process.

Otherwise Great Expectations compiles them for each page, which takes as long as the checks. `table_checks` names these
classes in the configuration of the Data Docs.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from great_expectations.render.view.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket


class _Memory(BytecodeCache):
    """Compiled templates by their key, which depends on the template's name; jinja2 compares the source by itself."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if (code := self._kept.get(bucket.key)) is not None:
            bucket.load_bytecode(BytesIO(code))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _Memory()


class Page(DefaultJinjaPageView):
    """A page about one check or one set of rules."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.env.bytecode_cache = _COMPILED


class IndexPage(DefaultJinjaIndexPageView):
    """The first page."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.env.bytecode_cache = _COMPILED
