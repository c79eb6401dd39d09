import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from engine.demo import demo
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


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MASKLETS_STORGE__ROOT", "s3://bucket", "MASKLETS_STORGE__ROOT is no setting: is MASKLETS_STORAGE__… meant?"),
        ("MASKLETS_HOEM", "/data", "MASKLETS_HOEM is no setting: is MASKLETS_HOME meant?"),
        ("MASKLETS_XYZ__ROOT", "s3://bucket", "MASKLETS_XYZ__ROOT is no setting"),
        ("MASKLETS_CONFIG", "/no/masklets.toml", "MASKLETS_CONFIG names no file: /no/masklets.toml"),
    ],
)
def test_what_names_nothing_is_not_passed_over(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        Settings()
    assert str(error.value) == said


def test_what_an_orchestrator_sets_for_a_service_of_our_name_is_passed_over(monkeypatch):
    for name in ("MASKLETS_PORT", "MASKLETS_SERVICE_HOST", "MASKLETS_PORT_8765_TCP", "MASKLETS_QUEUE_SERVICE_PORT"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:8765")
    Settings()


@pytest.mark.parametrize("name", ["a%20b", "a?b", "a#b"])
def test_a_home_that_a_database_would_not_be_found_in_is_refused(tmp_path, name):
    settings = Settings(home=tmp_path / name)
    for uri in ("catalog_uri", "queue_database_uri", "registry_uri"):
        with pytest.raises(ValueError, match="cannot be one of a database"):
            getattr(settings, uri)
    assert (
        Settings(home=tmp_path / name, queue={"database_uri": "sqlite:///x.db"}).queue_database_uri == "sqlite:///x.db"
    )


def test_a_file_that_is_no_toml_is_named(tmp_path, monkeypatch):
    file = tmp_path / "masklets.toml"
    file.write_text("[rounds\n")
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    with pytest.raises(ValueError, match=f"^{file}: .*line 1"):
        Settings()


def test_another_process_gets_the_same_settings(tmp_path, monkeypatch):
    settings = Settings(home=tmp_path, queue={"port": 4321, "token": "secret"}, auto={"max_objects": 3})
    file = tmp_path / "masklets.toml"
    file.write_text('[storage]\nroot = "s3://from/file"\n')
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_nothing_from_outside_changes_the_demo(tmp_path, monkeypatch):
    before = demo.settings(tmp_path)
    file = tmp_path / "masklets.toml"
    file.write_text('[storage]\nroot = "s3://mine/precious"\n[ingest]\nworkers = 9\n')
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    for part in set(Settings.model_fields) - {"home"}:
        for name, field in type(getattr(before, part)).model_fields.items():
            free = field.annotation in (str, str | None, SecretStr | None)
            if free and (part, name) not in (("airflow", "host"), ("queue", "host")):
                monkeypatch.setenv(f"MASKLETS_{part}__{name}".upper(), "s3://mine/precious")
    assert Settings().queue.url == Settings().root == "s3://mine/precious"
    ports = {"queue": ("port",), "airflow": ("port",)}  # free ones, new each time

    def parts(settings):
        values = {p: v.model_dump() for p, v in settings if isinstance(v, BaseModel)}
        return {p: {k: x for k, x in v.items() if k not in ports.get(p, ())} for p, v in values.items()}

    assert parts(demo.settings(tmp_path)) == parts(before)


def test_the_phase_is_one_of_three():
    with pytest.raises(ValidationError, match="phase"):
        Settings(review={"phase": "4"})


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        Settings().home = "/elsewhere"
