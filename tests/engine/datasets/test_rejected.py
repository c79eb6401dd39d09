"""Which candidates say where no object is."""

import json
from dataclasses import replace

import pytest

from engine.datasets import rejected
from engine.verifier.judged import verify_tickets
from storage.blobs.folder import LocalBlobs
from storage.dataset import parts
from storage.records import Operation
from tests.storage.rows import make_masklet, make_video

VIDEO = make_video("v1", batch_id="b1")


def said(masklet_id, verdict, *reasons, seq=1, person="vera", kind="verdict"):
    ticket_id = verify_tickets(make_masklet(masklet_id, "v1", "b1"))[0]
    return Operation(
        operation_id=f"{masklet_id}-{seq}",
        ticket_id=ticket_id,
        batch_id="b1",
        video_id="v1",
        masklet_id=masklet_id,
        person=person,
        kind=kind,
        frame_idx=0,
        payload=json.dumps({"verdict": verdict, "reasons": reasons}),
        created_at="2026-01-01T00:00:00Z",
        seq=seq,
    )


def store(tmp_path, *acts):
    """A store whose batch has a candidate for each letter, and these acts. Only the first frame shows candidate "a"."""
    blobs = LocalBlobs(tmp_path)
    made = [make_masklet(name, "v1", "b1") for name in "abcdef"]
    made[0] = replace(made[0], area_px=(made[0].area_px[0], *(0 for _ in made[0].area_px[1:])))
    parts.write_part(blobs, kind="candidates", batch_id="b1", video_id="v1", rows=made)
    parts.write_part(blobs, kind="operations", batch_id="b1", video_id="v1", rows=list(acts))
    return blobs, made


def test_only_what_people_rejected_as_no_object_counts(tmp_path):
    blobs, made = store(
        tmp_path,
        said("a", "reject", "not_an_object"),
        said("b", "reject", "duplicate"),
        said("c", "refine", "not_an_object"),
        said("d", "reject", "not_an_object"),
        said("d", "reject", kind="unsubmit", seq=2),  # taken back
        said("e", "reject", "not_an_object"),
        said("e", "accept", seq=2, person="paul"),
        said("e", "accept", seq=3, person="anna"),  # most people saw an object
    )
    found = rejected.of_video(blobs, VIDEO)
    assert list(found) == ["a"]
    assert found["a"] == {0: made[0].rle[0]}, "absent from the other frames"


def test_a_video_without_candidates_has_none_and_a_damaged_part_is_said(tmp_path):
    assert rejected.of_video(LocalBlobs(tmp_path / "imported"), VIDEO) == {}
    blobs, _ = store(tmp_path, said("a", "reject", "not_an_object"))
    marker = parts.marker(blobs, "candidates", "b1", "v1")
    assert marker is not None
    blobs.write(marker.key, b"damaged")
    with pytest.raises(parts.PartDamaged):
        rejected.of_video(blobs, VIDEO)
