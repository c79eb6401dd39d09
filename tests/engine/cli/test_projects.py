"""Projects at the command line."""

from __future__ import annotations

import json

import pytest

from engine.settings import Settings


@pytest.fixture
def settings(tmp_path, clips, monkeypatch):
    """An installation with one project."""
    file = tmp_path / "masklets.toml"
    file.write_text(f'[projects.pets]\ningest.source = "{clips}"\nreview.phase = "1"\n')
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    return Settings(home=tmp_path / "home")


def test_ingest_admits_the_source_of_a_project_and_stats_name_it(command):
    said = json.loads(command("ingest", "--project", "pets", "--json"))
    assert said["admitted"] == 3
    (batch_id,) = said["batch_ids"]
    assert f"batch {batch_id}  pets  ingested" in command("stats")
    assert json.loads(command("stats", "--json"))["projects"] == {batch_id: "pets"}


def test_an_unknown_project_is_one_line(mistake):
    assert "the settings have no project 'cars'; there are: pets" in mistake("ingest", "--project", "cars")


def test_without_a_project_its_source_is_not_taken(mistake):
    assert "no source" in mistake("ingest")
