"""Valid rows, which the tests change."""

from __future__ import annotations

import pytest

from tests.storage.rows import make_masklet, make_video


@pytest.fixture
def video():
    return make_video


@pytest.fixture
def masklet():
    return make_masklet
