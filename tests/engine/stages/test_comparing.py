"""Candidates that the checkpoint before tracks, too: people look first where the two disagree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.candidates import finding
from engine.registry import Checkpoint
from engine.services import Services, connect
from engine.settings import Settings, VerifierSettings
from engine.stages import propose, routing
from engine.verifier.features import FEATURES, table_of
from storage.dataset import parts
from storage.records import Masklet
from tests.engine.admitting import admit_batch
from tests.storage.rows import make_masklet

COMPARED = ({"last_iou": 0.8}, {"last_iou": 0.1})
MADE = Checkpoint("round-001-00000000", 1, "checkpoints/round-001-00000000")


def promote(s: Services, parent: str) -> None:
    """Promotes a round with the weights of the settings' checkpoint, made from `parent`."""
    for path in Path(s.settings.model.checkpoint).iterdir():
        if path.name != "meta.json":
            s.blobs.create(f"{MADE.key}/{path.name}", path.read_bytes())
    begun = {"parent": parent, "parent_round": 0, "parent_key": None}
    s.blobs.create(f"{MADE.key}/meta.json", json.dumps({"round": begun}).encode())
    s.registry.promote(MADE, s.blobs.uri_of(str(MADE.key)), s.registry.record(MADE.name, {}, {}))


def proposed(s: Services) -> list[Masklet]:
    batch_id = admit_batch(s)
    propose.propose_batch(s, batch_id)
    rows = list(parts.rows(s.blobs, "candidates", batch_id))
    assert rows
    return rows


@pytest.fixture
def comparing(settings: Settings) -> Settings:
    return settings.model_copy(update={"verifier": VerifierSettings(compare=True)})


def test_the_checkpoint_before_follows_each_candidate_and_the_verifier_sees_how_well(comparing: Settings) -> None:
    with connect(comparing) as s:
        promote(s, s.settings.model.checkpoint)
        rows = proposed(s)
    said = [json.loads(row.prompt)["last_iou"] for row in rows]
    assert all(0 <= iou <= 1 for iou in said) and max(said) > 0.9, "the two checkpoints have the same weights"
    assert table_of(rows)[:, FEATURES.index("last_iou")].tolist() == said


def test_nothing_is_compared_before_the_first_round_or_unless_it_is_asked_for(
    comparing: Settings, settings: Settings
) -> None:
    with connect(comparing) as s:
        assert all("last_iou" not in json.loads(row.prompt) for row in proposed(s))
    apart = settings.model_copy(update={"home": settings.home.with_name("apart")})
    with connect(apart) as s:
        promote(s, s.settings.model.checkpoint)
        assert all("last_iou" not in json.loads(row.prompt) for row in proposed(s))


def test_a_checkpoint_before_that_is_gone_stops_nothing(
    comparing: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(comparing) as s:
        promote(s, str(tmp_path / "gone"))
        assert all("last_iou" not in json.loads(row.prompt) for row in proposed(s))
    assert "not compared with the checkpoint before" in caplog.text


def test_a_checkpoint_before_that_gives_no_numbers_costs_no_candidate(
    comparing: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*given: object) -> None:
        raise FloatingPointError("no numbers")

    monkeypatch.setattr(finding, "with_agreement", fails)
    with connect(comparing) as s:
        promote(s, s.settings.model.checkpoint)
        assert all("last_iou" not in json.loads(row.prompt) for row in proposed(s))
    assert "not compared with the checkpoint before: no numbers" in caplog.text


def test_people_look_first_where_the_verifier_or_the_checkpoints_are_unsure() -> None:
    plain, alike, apart = (replace(make_masklet(), prompt=json.dumps(said)) for said in ({}, *COMPARED))
    assert [routing.expected_gain(row, 0.5) for row in (plain, alike, apart)] == pytest.approx([0.5, 0.5, 0.9])
