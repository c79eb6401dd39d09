"""The sources of settings, and which mistakes are errors."""

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from engine import setting_names
from engine.demo import demo
from engine.settings import NoSuchProject, Settings


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    file = tmp_path / "masklets.toml"
    file.write_text('home = "/a"\n[storage]\nroot = "s3://from/file"\n[rounds]\nsteps = 7\n')
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    monkeypatch.setenv("MASKLETS_STORAGE__ROOT", "s3://from/environment")
    settings = Settings()
    assert (settings.root, settings.rounds.steps, str(settings.home)) == ("s3://from/environment", 7, "/a")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[rounds]\nstepz = 7", "unknown key rounds.stepz: did you mean rounds.steps?"),
        ("[modle]\ncheckpoint = 'x'", "unknown key modle: did you mean model?"),
        ("steps = 7", "unknown key steps"),
        ("[storage.deep]\nroot = 'x'", "unknown key storage.deep"),
    ],
)
def test_an_unknown_key_is_named_as_a_key_of_its_file(tmp_path, monkeypatch, written, message):
    file = tmp_path / "masklets.toml"
    file.write_text(written)
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    with pytest.raises(ValueError) as error:
        Settings()
    assert str(error.value) == f"{file}: {message}"


def test_an_invalid_value_is_told_with_the_variable_or_the_key_that_holds_it(tmp_path, monkeypatch):
    file = tmp_path / "masklets.toml"
    file.write_text("[rounds]\nsteps = 'many'\nlr = inf\n[queue]\nport = -1\n")
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    monkeypatch.setenv("MASKLETS_QUEUE__PORT", "none")
    with pytest.raises(ValidationError) as error:
        Settings()
    lines = setting_names.problems(error.value, os.environ, file)
    places = [line.rpartition(": Input")[0] for line in lines]
    assert places == ["MASKLETS_QUEUE__PORT", f"{file}: rounds.steps", f"{file}: rounds.lr"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "MASKLETS_STORGE__ROOT",
            "s3://bucket",
            "unknown setting MASKLETS_STORGE__ROOT: did you mean MASKLETS_STORAGE__ROOT?",
        ),
        ("MASKLETS_HOEM", "/data", "unknown setting MASKLETS_HOEM: did you mean MASKLETS_HOME?"),
        (
            "MASKLETS_MODEL_CHECKPOINT",
            "x",
            "unknown setting MASKLETS_MODEL_CHECKPOINT: did you mean MASKLETS_MODEL__CHECKPOINT?",
        ),
        ("masklets_model_divice", "x", "unknown setting masklets_model_divice: did you mean MASKLETS_MODEL__DEVICE?"),
        ("MASKLETS_QUEUE_PORT", "8765", "unknown setting MASKLETS_QUEUE_PORT: did you mean MASKLETS_QUEUE__PORT?"),
        ("MASKLETS_ROUNDS__STEPZ", "3", "unknown setting MASKLETS_ROUNDS__STEPZ: did you mean MASKLETS_ROUNDS__STEPS?"),
        *(
            (f"MASKLETS_{last}", value, f"unknown setting MASKLETS_{last}: did you mean {meant}?")
            for last, value, meant in (
                ("S3_ENDPOINT", "http://127.0.0.1:9000", "MASKLETS_STORAGE__S3_ENDPOINT"),
                ("DEVICE", "cuda", "MASKLETS_MODEL__DEVICE"),
                ("DTYPE", "bfloat16", "MASKLETS_MODEL__DTYPE"),
                ("SOURCE", "/videos", "MASKLETS_INGEST__SOURCE"),
                ("PORT", "8765", "MASKLETS_AIRFLOW__PORT or MASKLETS_QUEUE__PORT"),
            )
        ),
        ("MASKLETS_XYZ__ROOT", "s3://bucket", "unknown setting MASKLETS_XYZ__ROOT"),
        ("MASKLETS_CONFIG", "/no/masklets.toml", "MASKLETS_CONFIG names a missing file: /no/masklets.toml"),
    ],
)
def test_an_unknown_variable_or_a_missing_file_is_an_error(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        Settings()
    assert str(error.value) == message


def test_variables_that_kubernetes_sets_for_a_service_called_masklets_are_ignored(monkeypatch):
    for service in ("MASKLETS", "MASKLETS_QUEUE"):
        for name in ("PORT", "PORT_8765_TCP"):
            monkeypatch.setenv(f"{service}_{name}", "tcp://10.0.0.1:8765")
        for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8765_TCP_PORT", "PORT_8765_TCP_ADDR"):
            monkeypatch.setenv(f"{service}_{name}", "8765")
    monkeypatch.setenv("MASKLETS_TEAM", "another program's")
    Settings()


@pytest.mark.parametrize("name", ["a%20b", "a?b", "a#b"])
def test_a_home_whose_path_cannot_be_part_of_a_database_uri_is_an_error(tmp_path, name):
    settings = Settings(home=tmp_path / name)
    for uri in ("catalog_uri", "queue_database_uri", "registry_uri"):
        with pytest.raises(ValueError, match="cannot contain"):
            getattr(settings, uri)
    assert (
        Settings(home=tmp_path / name, queue={"database_uri": "sqlite:///x.db"}).queue_database_uri == "sqlite:///x.db"
    )


def test_an_error_names_the_file_that_is_not_toml(tmp_path, monkeypatch):
    file = tmp_path / "masklets.toml"
    file.write_text("[rounds\n")
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    with pytest.raises(ValueError, match=f"^{file}: .*line 1"):
        Settings()


def test_another_process_gets_the_same_settings(tmp_path, monkeypatch):
    queue, ingest = {"port": 4321, "token": "secret"}, {"split_by": ["place"]}
    settings = Settings(home=tmp_path, queue=queue, auto={"max_objects": 3}, ingest=ingest)
    file = tmp_path / "masklets.toml"
    file.write_text('[storage]\nroot = "s3://from/file"\n')
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_no_environment_or_file_changes_the_settings_of_the_demo(tmp_path, monkeypatch):
    before = demo.settings(tmp_path)
    file = tmp_path / "masklets.toml"
    file.write_text('[storage]\nroot = "s3://mine/precious"\n[ingest]\nworkers = 9\n[projects.mine]\n')
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    for part in set(Settings.model_fields) - {"home", "projects"}:
        for name, field in type(getattr(before, part)).model_fields.items():
            free = field.annotation in (str, str | None, SecretStr | None)
            if free and (part, name) not in (("airflow", "host"), ("queue", "host")):
                value = "10.0.0.7" if name == "trusted_proxies" else "s3://mine/precious"
                monkeypatch.setenv(f"MASKLETS_{part}__{name}".upper(), value)
    assert Settings().queue.url == Settings().root == "s3://mine/precious"
    ports = {"queue": ("port",), "airflow": ("port",)}  # free ones, new each time

    def parts(settings):
        values = {p: v.model_dump() for p, v in settings if isinstance(v, BaseModel)}
        return {p: {k: x for k, x in v.items() if k not in ports.get(p, ())} for p, v in values.items()}

    assert parts(demo.settings(tmp_path)) == parts(before) and demo.settings(tmp_path).projects == {}


PROJECTS = """
[ingest]
source = "/videos/plain"
min_s = 2.0

[review]
phase = "2"

[projects.street-scenes]
people = ["ann"]
ingest.source = "/videos/street"
review.ontology = "street.toml"
review.label_at = "verify"
campaign.phases = [{ phase = "1", masklets = 5 }]

[projects.pets]
review.phase = "1"
"""


@pytest.fixture
def with_projects(tmp_path, monkeypatch):
    """The settings of a file with two projects."""
    file = tmp_path / "masklets.toml"
    file.write_text(PROJECTS)
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    return Settings(home=tmp_path)


def test_a_project_has_its_own_sections_and_otherwise_those_of_all(with_projects):
    street, pets = (with_projects.of_project(name) for name in ("street-scenes", "pets"))
    assert with_projects.project_names == ("", "street-scenes", "pets")
    assert (street.ingest.source, street.ingest.min_s, street.review.phase) == ("/videos/street", 2.0, "2")
    assert street.review.label_at == "verify" and street.campaign.phases[0].masklets == 5
    assert (pets.ingest.source, pets.review.phase, pets.review.ontology) == (None, "1", None)
    assert with_projects.of_project("") is with_projects and with_projects.projects["street-scenes"].people == ("ann",)
    with pytest.raises(NoSuchProject, match="there are: street-scenes, pets"):
        with_projects.of_project("cars")


def test_other_processes_get_the_projects(with_projects, monkeypatch):
    variables = with_projects.environment()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings() == with_projects


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[projects.Cars]", "projects.Cars"),
        ("[projects.cars.ingest]\nsorce = '/x'", "projects.cars.ingest.sorce"),
        ("[projects.cars]\nreview.label_at = 'verify'", "set ontology"),
        ("[[notices.apprise]]\nname = 'x'\nurl = 'json://x'\nprojects = ['b']\n[projects.a]", "no project 'b'"),
        ("[projects.a.ingest]\nsource = '/x'\n[projects.b.ingest]\nsource = '/x'", "two projects have the source /x"),
    ],
)
def test_a_wrong_project_is_said_with_its_key(tmp_path, monkeypatch, written, said):
    file = tmp_path / "masklets.toml"
    file.write_text(written)
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    with pytest.raises(ValidationError) as caught:
        Settings(home=tmp_path)
    assert said in "; ".join(setting_names.problems(caught.value, {}, file))


def test_the_phase_is_one_of_three():
    with pytest.raises(ValidationError, match="phase"):
        Settings(review={"phase": "4"})


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        Settings().home = Path("/elsewhere")  # type: ignore[misc]  # the test: it must not be possible
