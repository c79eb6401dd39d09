import pytest
from pydantic import ValidationError

from engine.settings import Settings


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    file = tmp_path / "masklets.toml"
    file.write_text('home = "/a"\n[storage]\nroot = "s3://from/file"\n[rounds]\nsteps = 7\n')
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    monkeypatch.setenv("MASKLETS_STORAGE__ROOT", "s3://from/environment")
    settings = Settings()
    assert (settings.root, settings.rounds.steps, str(settings.home)) == ("s3://from/environment", 7, "/a")


def test_a_setting_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "masklets.toml"
    file.write_text("[rounds]\nstepz = 7\n")
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    with pytest.raises(ValidationError, match="stepz"):
        Settings()


def test_another_process_gets_the_same_settings(tmp_path, monkeypatch):
    settings = Settings(home=tmp_path, queue={"port": 4321, "token": "secret"}, auto={"max_objects": 3})
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        Settings().home = "/elsewhere"
