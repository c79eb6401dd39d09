"""An error in one line."""

from __future__ import annotations

import pytest

from storage.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no such file"), "no such file"),
        (ValueError("\n  first\nsecond"), "first"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (KeyError("key"), "'key'"),
    ],
)
def test_an_error_has_one_line(error, line):
    assert first_line(error) == line
