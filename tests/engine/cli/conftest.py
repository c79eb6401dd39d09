"""Commands that run in this process."""

import sys

import pytest

from engine.cli import main


@pytest.fixture
def ended(settings, monkeypatch, capsys):
    """A function that runs a command and returns its exit status and what it printed."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["masklets", *words])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        return stopped.value.code or 0, capsys.readouterr()

    return run


@pytest.fixture
def command(ended):
    """A function that runs a command, which must succeed, and returns its output."""

    def run(*words):
        status, printed = ended(*words)
        assert not status, printed.err
        return printed.out

    return run


@pytest.fixture
def mistake(ended):
    """A function that runs a command, which must end with status 2, and returns its errors."""

    def run(*words):
        status, printed = ended(*words)
        assert status == 2, printed.out
        return printed.err

    return run
