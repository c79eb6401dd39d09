"""What every test may rely on: no settings leak in from the environment, Ctrl-C means something, and no thread pool
slows two cores down.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what goes on behind it with Ctrl-C ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No MASKLETS_ variable of the developer's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith("MASKLETS_") and not name.startswith("MASKLETS_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MASKLETS_CONFIG", os.devnull)
