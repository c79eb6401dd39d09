"""The figures of a release: as SA-V defines them, from columns alone, and each with a definition."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stages import upkeep
from engine.views import figures, report, tables
from storage import arrow
from storage.dataset import parts, releases
from storage.dataset.batch_manifests import ReleaseError
from storage.formats import sav, sav_figures
from storage.records import Masklet, Operation
from tests.engine.views.small_releases import FRAMES, H, W, masklet_of, publish, track
from tests.shared import SHARED
from tests.storage.rows import make_masklet


def two_videos(s):
    """v1: an object that is gone for a frame, and one that leaves. v2: a small one that a person edited."""
    return publish(
        s,
        [
            masklet_of("back", track(0, 4, None, 12, 16, 20), verified_by="verifier-0001-0a1b2c3d"),
            masklet_of("leaves", track(0, 0, 0, 0, None, None), annotated_by="ada"),
            masklet_of(
                "edited",
                track(None, 8, 8, 8, 8, 8, size=40, y=4),
                "v2",
                kind="manual",
                phase="3",
                edited_frame_count=3,
                click_count=7,
                annotated_by="ada",
                verified_by="bo",
                split="val",
                checkpoint="round-001",
            ),
        ],
    )


def test_the_table_of_sa_v_counts_masks_that_show_something_and_frames_at_six_a_second(s):
    found = figures.of(two_videos(s))
    assert found.groups["auto"] == figures.Group(
        videos=1, hours=1 / 3600, masklets=2, masks=9, frames=6, disappearance_rate=0.5
    )
    assert found.groups["manual"] == figures.Group(
        videos=1, hours=1 / 3600, masklets=1, masks=5, frames=6, disappearance_rate=0.0
    )
    both = found.groups[figures.ALL]
    assert (both.videos, both.masklets, both.masks, both.frames) == (2, 3, 14, 12)
    assert both.disappearance_rate == pytest.approx(1 / 3)
    assert {name: group.masklets for name, group in found.splits.items()} == {"train": 2, "val": 1}


def test_masklets_are_counted_by_label_and_the_table_says_how_many_have_none(s):
    rows = [masklet_of(f"m{n}", track(0, 0), label=label) for n, label in enumerate(("cat", "dog", "dog", None))]
    found = figures.of(publish(s, rows))
    assert list(found.labels.items()) == [("dog", 2), ("cat", 1)]
    (table,) = [table for table in tables.of(found) if table.title == "Masklets by label"]
    assert table.rows[1:] == [("dog", "2", "50.0%"), ("cat", "1", "25.0%"), ("(no label)", "1", "25.0%")]


def test_a_release_without_labels_has_no_table_of_labels(s):
    found = figures.of(two_videos(s))
    assert found.labels == {} and "Masklets by label" not in [table.title for table in tables.of(found)]


def test_sizes_changes_edits_and_people_are_counted(s):
    found = figures.of(two_videos(s))
    assert found.sizes == {"small": 2, "medium": 1, "large": 0}
    assert found.visibility_changes == {"0": 1, "1": 1, "2": 1, "3": 0, "4": 0, "5": 0, "6 or more": 0}
    assert found.area_share == {"0.0001": 0, "0.001": 0, "0.01": 0, "0.1": 9, "1": 5}
    assert found.small_masks == 9 / 14
    assert found.first_frame == pytest.approx(2 / 3)
    assert (found.edited_frames, found.clicks) == (0.5, 7)
    assert found.edited_share == {
        "none": 0,
        "up to 5%": 0,
        "up to 10%": 0,
        "up to 25%": 0,
        "up to 50%": 1,
        "up to 100%": 0,
    }
    assert found.makers == {"micro": {"unchanged": 2}, "round-001": {"edited": 1}}
    assert found.phases == {"3": 1, "auto": 2}
    assert (found.people, found.decided_alone) == ({"annotators": 1, "reviewers": 1}, 1)
    assert found.videos.duration_s == (1.0, 1.0, 1.0)
    assert found.videos.size_px == ((W, H), (W, H), (W, H))


@given(st.lists(st.lists(st.integers(0, 2), min_size=6, max_size=6).filter(any), min_size=1, max_size=5))
def test_what_sa_v_derives_from_the_masks_is_the_same_here(areas):
    """Masks are not needed: sizes, changes and first frames follow from the areas."""
    rows = [
        make_masklet(str(n), frame_idx=tuple(range(0, FRAMES, 4)), area_px=tuple(area)) for n, area in enumerate(areas)
    ]
    rows = [
        replace(row, rle=(b"",) * 6, score=(0.0,) * 6, object_score=(0.0,) * 6, stability=(0.0,) * 6) for row in rows
    ]
    seen = figures.Seen.of(arrow.to_arrow(Masklet, rows), np.full(len(rows), 6))
    for n, area in enumerate(areas):
        derived = sav_figures.derive(area, 24, 32)
        assert seen.changes[n] == derived.visibility_changes
        assert seen.first[n] == derived.first_appeared
        assert seen.area_sum[n] / seen.masks[n] == pytest.approx(derived.size_abs)
        assert figures.size_bucket(seen.area_sum[n] / seen.masks[n]) == derived.size_bucket
        assert (seen.gaps[n] > 0) == (derived.visibility_changes >= 2)


@pytest.mark.skipif(not SHARED.exists(), reason="the real files are missing")
def test_the_published_figures_of_a_real_file_of_sa_v_come_out_again():
    note = json.loads((SHARED / "sav_000001_manual.json").read_text())
    rows = sav.from_sav(note)
    seen = figures.Seen.of(arrow.to_arrow(Masklet, rows), np.full(len(rows), len(note["masklet"])))
    sizes = seen.area_sum / seen.masks
    assert sizes.tolist() == pytest.approx(note["masklet_size_abs"])
    assert [figures.size_bucket(size) for size in sizes] == note["masklet_size_bucket"]
    assert seen.changes.tolist() == note["masklet_visibility_changes"]
    assert seen.first.tolist() == note["masklet_first_appeared_frame"]


def test_frames_without_a_row_count_as_absent(s):
    row = masklet_of("m", track(0, 0, 0, 0))
    lists = ("frame_idx", "rle", "area_px", "score", "object_score", "stability")
    fewer = {name: tuple(v for n, v in enumerate(getattr(row, name)) if n != 1) for name in lists}
    found = figures.of(publish(s, [replace(row, **fewer)]))
    assert found.groups[figures.ALL].disappearance_rate == 1.0
    assert found.visibility_changes["3"] == 1  # gone, back, and gone before the end of the video


def test_verdicts_of_people_are_counted_by_checkpoint_and_not_those_that_were_taken_back(s):
    release = publish(s, [masklet_of("accepted", track(0, 0, 0, 0, 0, 0))])
    candidates = [masklet_of(name, track(0), checkpoint=f"maker of {name}") for name in ("accepted", "rejected")]
    parts.write_part(s.blobs, kind="candidates", batch_id="b1", video_id="v1", rows=candidates)

    def act(seq, masklet_id, kind, verdict="", person="bo"):
        return Operation(
            operation_id=f"{masklet_id}-{seq}-{person}",
            ticket_id=f"ticket of {masklet_id}",
            batch_id="b1",
            video_id="v1",
            masklet_id=masklet_id,
            person=person,
            kind=kind,
            frame_idx=None,
            payload=json.dumps({"verdict": verdict}),
            created_at="2026-01-01T00:00:00Z",
            seq=seq,
        )

    acts = [
        act(0, "accepted", "verdict", "reject"),
        act(1, "accepted", "unsubmit"),
        act(2, "accepted", "verdict", "accept"),
        act(0, "rejected", "verdict", "reject"),
        act(1, "rejected", "verdict", "refine", person="cy"),
        act(0, "a corrected masklet", "verdict", "accept"),
    ]
    parts.write_part(s.blobs, kind="operations", batch_id="b1", video_id="v1", rows=acts)
    parts.commit_batch(s.blobs, s.tables, "operations", "b1")
    assert figures.of(release, s.tables).verdicts == {
        "maker of accepted": {"accept": 1},
        "maker of rejected": {"reject": 1, "refine": 1},
    }
    assert figures.of(release).verdicts == {}


def test_masks_are_not_read(s, monkeypatch):
    release = two_videos(s)
    asked = []
    real = arrow.read_parquet

    def noted(data, columns=None):
        asked.append(columns)
        return real(data, columns)

    monkeypatch.setattr(arrow, "read_parquet", noted)
    monkeypatch.setattr(type(release), "masklets", None)
    figures.of(release)
    ours = [columns for columns in asked if columns is not None]
    assert ours and not any("rle" in columns for columns in ours)


def test_a_file_that_is_no_parquet_is_named(s):
    release = two_videos(s)
    key = next(release.files("masklets")).key
    s.blobs.write(key, b"nothing")
    with pytest.raises(ReleaseError, match=key):
        figures.of(release)


@pytest.mark.parametrize(
    ("changes", "line"),
    [({"kind": "other"}, "masklet m: 'other'"), ({"height": 0}, "0 x 96 px"), ({"area_px": (1,)}, "differ in length")],
)
def test_a_release_of_a_stranger_with_invalid_rows_is_refused_in_one_line(s, changes, line):
    release = publish(s, [replace(masklet_of("m", track(0, 0)), **changes)])
    with pytest.raises(ReleaseError, match=line):
        figures.of(release)


def test_every_figure_has_a_definition_and_every_table_has_one_or_shows_it_elsewhere(s):
    found = figures.of(two_videos(s))
    others = {"release", "digest", "groups", "splits"}
    fields = {field.name for kind in (figures.Figures, figures.Group) for field in dataclasses.fields(kind)}
    assert fields - others - set(figures.DEFINITIONS) == set()
    used = {
        term
        for table in tables.of(replace(found, verdicts={"micro": {"accept": 1}}, labels={"dog": 1}))
        for term in table.terms
    }
    assert used == set(figures.DEFINITIONS)
    assert json.loads(json.dumps(found.as_json()))["definitions"]["masks"] == figures.DEFINITIONS["masks"]


def test_the_page_is_one_file_that_loads_nothing(s, tmp_path):
    release = two_videos(s)
    page = report.write(release, figures.of(release), tmp_path / "new" / "page.html").read_text()
    assert release.name in page and "Beside SA-V" in page and "33.3%" in page
    assert page.count("<svg") == 1 and page.count('src="data:image/jpeg;base64,') == 1
    for address in ('src="http', 'href="http', "<script", "url(http", "<link"):
        assert address not in page
    assert figures.DEFINITIONS["disappearance_rate"] in page


@pytest.mark.parametrize(
    ("number", "text"), [(950, "950"), (9_999, "9,999"), (50_900, "50.9K"), (999_960, "1.0M"), (1e7, "10.0M")]
)
def test_counts_are_written_as_in_sa_v(number, text):
    assert tables.count(number) == text


def test_a_video_that_was_left_out_is_not_counted_in_a_file_of_many_videos(s):
    publish(s, [masklet_of("a", track(0))])
    publish(s, [masklet_of("b", track(0, 0), "v2", "b2")], "release-0002")
    done = upkeep.compact(s, least=1)
    compacted = releases.load(s.blobs, done.release)
    assert {file.video_id for file in compacted.files("masklets")} == {None}
    found = figures.of(compacted.without(["v2"])).groups[figures.ALL]
    assert (found.videos, found.masklets, found.masks) == (1, 1, 1)
