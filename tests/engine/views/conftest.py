"""Two stores without a model."""

import pytest

from engine.services import connect
from engine.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home")


@pytest.fixture
def other(tmp_path):
    """The services of a second store."""
    with connect(Settings(home=tmp_path / "other")) as services:
        yield services
