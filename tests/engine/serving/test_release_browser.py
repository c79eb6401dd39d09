"""Looking through a release: filters, pages of bounded cost, what people disagreed about, withdrawn videos."""

from __future__ import annotations

import json
import re
import signal

import cv2
import httpx
import numpy as np
import pytest

from annotation_queue.errors import NoSuchMasklet, NoSuchRelease, NoSuchVideo
from annotation_queue.release_records import ReleaseFilter
from engine.ingest import pseudonyms
from engine.serving import release_browser, serve
from engine.serving.media import StoredMedia
from engine.serving.release_browser import ReleaseBrowser, disagreements
from engine.settings import Settings
from engine.stages import upkeep
from storage import arrow, rle
from storage.blobs.folder import LocalBlobs
from storage.dataset import compacted, parts, withdrawn
from storage.dataset.releases import Release
from storage.dataset.withdrawn import Withdrawal
from storage.records import Operation
from tests.engine.views import small_releases
from tests.engine.views.small_releases import masklet_of, publish, track

NAME = "release-0001"


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home")


def act(ticket, person, verdict, masklet_id="m1", kind="verdict", seq=0):
    return Operation(
        operation_id=f"{ticket}{person}{seq}",
        ticket_id=ticket,
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


@pytest.fixture
def browser(s):
    rows = [
        masklet_of("m1", track(0, 4, None), label="cat", verified_by="vera"),
        masklet_of(
            "m2", track(None, 40, 40, size=40), kind="manual", phase="3", annotated_by="ann", checkpoint="round-1"
        ),
        masklet_of("m3", track(8, 8, 8), "v2", label="dog", split="val"),
    ]
    publish(s, rows)
    acts = [act("t", "vera", "accept"), act("t", "olga", "accept"), act("t", "ivan", "refine")]
    parts.write_part(s.blobs, kind="operations", batch_id="b1", video_id="v1", rows=acts)
    parts.commit_batch(s.blobs, s.tables, "operations", "b1")
    media = StoredMedia(s)
    yield ReleaseBrowser(s, media)
    media.close()


def ids(browser, **wanted):
    return [each.masklet_id for each in browser.page(NAME, ReleaseFilter(**wanted), None, 10).masklets]


def test_each_filter_finds_its_masklets(browser):
    found = {
        "text": ids(browser, text="v2"),
        "video": ids(browser, video_id="v1"),
        "label": ids(browser, label="cat"),
        "none": ids(browser, label=""),
        "size": ids(browser, size="medium"),
        "kind": ids(browser, kind="manual"),
        "phase": ids(browser, phase="3"),
        "split": ids(browser, split="val"),
        "annotator": ids(browser, person="ann"),
        "verifier": ids(browser, person="vera"),
        "checkpoint": ids(browser, checkpoint="round-1"),
        "score": ids(browser, score_from=0.95),
        "score to": ids(browser, score_to=0.9),
        "disagreement": ids(browser, disagreement_from=0.3),
        "both": ids(browser, label="cat", kind="manual"),
    }
    every = ["m1", "m2", "m3"]
    assert ids(browser) == every
    assert found == {
        "text": ["m3"],
        "video": ["m1", "m2"],
        "label": ["m1"],
        "none": ["m2"],
        "size": ["m2"],
        "kind": ["m2"],
        "phase": ["m2"],
        "split": ["m3"],
        "annotator": ["m2"],
        "verifier": ["m1"],
        "checkpoint": ["m2"],
        "score": [],
        "score to": every,
        "disagreement": ["m1"],
        "both": [],
    }


def test_a_name_of_the_queue_finds_what_its_pseudonym_made(s):
    called = pseudonyms.of(s.blobs)("ann")
    earlier = masklet_of("m3", track(80), annotated_by="ann")  # of before there were pseudonyms
    publish(s, [masklet_of("m1", track(0)), masklet_of("m2", track(40), annotated_by=called), earlier])
    media = StoredMedia(s)
    browser = ReleaseBrowser(s, media)
    assert ids(browser, person="ann") == ["m2", "m3"] == ids(browser, person=called)
    assert ids(browser, person="vera") == []
    media.close()


def test_a_list_says_how_large_and_how_often_an_object_is_seen(browser):
    first, second, _ = browser.page(NAME, ReleaseFilter(), None, 10).masklets
    assert (first.size, first.area_px, first.shown, first.frames, first.best) == ("small", 256.0, 2, 3, 0)
    assert (second.area_px, second.best, second.score) == (1600.0, 4, pytest.approx(0.9))
    assert (first.disagreement, second.disagreement) == (pytest.approx(1 / 3), None)


def test_a_page_reads_the_verdicts_of_all_its_videos_at_once_and_no_video_twice(browser, s, monkeypatch):
    asked, operations = [], s.tables.operations

    def counted(where):
        asked.append(where)
        return operations(where=where)

    monkeypatch.setattr(s.tables, "operations", counted)
    assert ids(browser, disagreement_from=0.3) == ["m1"] and len(ids(browser)) == 3
    assert asked == ["video_id in ('v1', 'v2') and kind in ('verdict', 'unsubmit')"]


def test_pages_follow_each_other_and_none_looks_at_more_than_its_share(browser, monkeypatch):
    found, looked, after = [], 0, None
    for _ in range(3):
        page = browser.page(NAME, ReleaseFilter(), after, 1)
        found += [each.masklet_id for each in page.masklets]
        looked += page.looked
        after = page.next
    assert found == ["m1", "m2", "m3"] and after is None
    assert looked == 3, "each is counted once"
    monkeypatch.setattr(release_browser, "MOST_LOOKED", 2)
    short = browser.page(NAME, ReleaseFilter(label="dog"), None, 10)
    assert (short.masklets, short.looked) == ((), 2)
    assert [each.masklet_id for each in browser.page(NAME, ReleaseFilter(label="dog"), short.next, 10).masklets] == [
        "m3"
    ]


def test_the_masks_of_a_video_come_in_pieces_and_without_empty_ones(browser):
    video = browser.video(NAME, "v1")
    assert video.info.frame_count == 24
    assert [masklet.masklet_id for masklet in video.masklets] == ["m1", "m2"]
    first, second = (browser.masks(NAME, "v1", *piece).masklets for piece in ((0, 8), (8, 16)))
    assert [masks.frame_idx for masks in first] == [(0, 4), (4,)]
    assert [masks.frame_idx for masks in second] == [(), (8,)]
    mask = rle.decode(first[1].rle[0].encode(), small_releases.H, small_releases.W)
    assert (mask == small_releases.block(40, size=40)).all()
    assert browser.frame(NAME, "v1", 4) != browser.frame(NAME, "v1", 8)
    picture = cv2.imdecode(np.frombuffer(browser.thumbnail(NAME, "v1", "m2"), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape[1] == 320


def test_what_is_not_in_the_release_is_an_error(browser):
    with pytest.raises(NoSuchRelease, match="other"):
        browser.page("other", ReleaseFilter(), None, 10)
    with pytest.raises(NoSuchVideo, match="no video v9"):
        browser.frame(NAME, "v9", 0)
    with pytest.raises(NoSuchMasklet):
        browser.thumbnail(NAME, "v1", "m3")


def test_a_withdrawn_video_is_not_shown_any_more(browser, s, monkeypatch):
    listed, files = [], Release.files

    def counted(release, kind):
        listed.append(release.name)
        return files(release, kind)

    monkeypatch.setattr(release_browser, "SEES_S", 0)
    monkeypatch.setattr(Release, "files", counted)
    media = StoredMedia(s)
    browser = ReleaseBrowser(s, media)
    assert browser.video(NAME, "v1") and ids(browser) == ["m1", "m2", "m3"]
    withdrawn.record(s.blobs, Withdrawal(video_id="v1", by="lea", at="2026-01-01T00:00:00Z", why="asked to"))
    assert ids(browser) == ["m3"]
    for ask in (browser.video, browser.check, lambda *of: browser.masks(*of, 0, 8)):
        with pytest.raises(NoSuchVideo):
            ask(NAME, "v1")
    assert listed == [NAME], "the list of a release's files never changes: it is read once"
    media.close()


def test_of_a_large_file_the_row_groups_of_a_video_or_of_a_page_are_read(s, monkeypatch):
    rows = [masklet_of(f"m{n}", track(0), f"v{n}", label="cat" if n == 5 else None) for n in range(6)]
    publish(s, rows)
    monkeypatch.setattr(release_browser, "SMALL", 0)
    monkeypatch.setattr(compacted, "GROUP_BYTES", 1)  # a video is a row group
    monkeypatch.setattr(compacted, "_TAIL", 0)
    name = upkeep.compact(s, least=1).release
    browser, read, fetched = ReleaseBrowser(s, StoredMedia(s)), list[int](), list[str]()
    real_group, real_fetch = arrow.read_group, LocalBlobs.fetch

    def read_group(file, n, *more):
        read.append(n)
        return real_group(file, n, *more)

    def fetch(blobs, key):
        fetched.append(key)
        return real_fetch(blobs, key)

    monkeypatch.setattr(arrow, "read_group", read_group)
    monkeypatch.setattr(LocalBlobs, "fetch", fetch)

    def found(after=None, **wanted):
        read.clear()
        page = browser.page(name, ReleaseFilter(**wanted), after, 2)
        return [each.masklet_id for each in page.masklets], page.next, page.looked, list(read)

    assert found(video_id="v3") == (["m3"], None, 6, [3])
    assert found() == (["m0", "m1"], "0.2", 2, [0, 1, 2])
    assert found("0.2") == (["m2", "m3"], "0.4", 2, [2, 3, 4])
    assert fetched == [], "nothing was downloaded whole"
    assert found(label="cat") == (["m5"], None, 6, []) and len(fetched) == 1, "a search needs all of it"


def test_verdicts_that_were_taken_back_do_not_disagree():
    acts = [act("t", "vera", "accept"), act("t", "ivan", "reject"), act("t", "ivan", "", kind="unsubmit", seq=1)]
    assert disagreements(acts) == {"m1": 0.0}
    assert disagreements([*acts, act("u", "olga", "reject")]) == {"m1": 0.5}
    assert disagreements(acts[1:]) == {}


@pytest.mark.server
def test_a_release_is_served_to_this_machine_alone_the_window_opens_when_it_answers_and_ctrl_c_is_no_error(browser, s):
    answers = []

    def opened(address):
        answers.append((address, httpx.get(f"{address}api/releases", timeout=5).json()))
        signal.raise_signal(signal.SIGINT)

    serve.browse(s, NAME, 0, opened)
    ((address, answer),) = answers
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address) and answer["alone"] is True
    assert [each["name"] for each in answer["releases"]] == [NAME]
