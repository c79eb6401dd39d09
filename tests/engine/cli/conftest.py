"""Commands that run in this process."""

import sys

import pytest

from engine.cli import main


@pytest.fixture
def command(settings, monkeypatch, capsys):
    """A function that runs a command, which must succeed, and returns its output."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["masklets", *words])
        with pytest.raises(SystemExit) as ended:
            main.main()
        printed = capsys.readouterr()
        assert not ended.value.code, printed.err
        return printed.out

    return run
