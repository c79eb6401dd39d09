"""Splits: nothing of an author is on two sides, and no split changes once it is given."""

import json

import pytest

from engine.ingest import splits
from engine.services import connect
from engine.settings import IngestSettings, Settings
from storage.blobs.base import BlobDamaged
from tests.storage import rows

SHARES = IngestSettings(held_out_share=0.3, test_share=0.2)


@pytest.fixture
def s(tmp_path):
    with connect(Settings(home=tmp_path / "home")) as services:
        yield services


def videos(count: int, first: int = 0, **metadata):
    """Videos, each with this metadata. A function is called with the number of the video."""
    made = []
    for n in range(first, first + count):
        of = {key: value(n) if callable(value) else value for key, value in metadata.items()}
        split = of.pop("split", "")
        made.append(rows.make_video(f"{n:016x}", split=split, source_metadata=json.dumps(of) if of else None))
    return made


def decide(s, records, settings=SHARES, imported=False):
    return splits.decide(s, records, settings, imported)


def test_all_videos_of_an_author_are_on_one_side_and_the_shares_hold(s):
    decided = decide(s, videos(400, author=lambda n: f"author-{n % 200}", place=lambda n: f"place {n % 7}"))
    by_author = {author: {decided[f"{n:016x}"] for n in range(author, 400, 200)} for author in range(200)}
    assert all(len(sides) == 1 for sides in by_author.values())
    found = [next(iter(sides)) for sides in by_author.values()]
    assert abs(found.count("val") / 200 - 0.3) < 0.08 and abs(found.count("test") / 200 - 0.2) < 0.08


def test_without_an_author_the_place_decides_and_without_both_the_share(s):
    places = decide(s, videos(600, place=lambda n: f"place {n % 60}"))
    assert all(len({places[f"{n:016x}"] for n in range(p, 600, 60)}) == 1 for p in range(60))
    assert set(places.values()) == {"train", "val", "test"}
    free = list(decide(s, videos(100)).values())
    assert (free.count("val"), free.count("test"), free.count("train")) == (30, 20, 50)
    by_country = IngestSettings(held_out_share=0.3, test_share=0.2, split_by=("country",))
    assert len(set(decide(s, videos(100, author=lambda n: str(n), country="DE"), by_country).values())) == 1


def test_a_group_keeps_its_split_whatever_comes_later(s):
    first = decide(s, videos(50, author=lambda n: f"author-{n}"))
    all_held_out = IngestSettings(held_out_share=0.9, test_share=0.0)
    again = decide(s, videos(50, 50, author=lambda n: f"AUTHOR-{n - 50} "), all_held_out)
    assert [again[f"{n + 50:016x}"] for n in range(50)] == [first[f"{n:016x}"] for n in range(50)]
    named = decide(s, videos(50, 100, author=lambda n: f"author-{n - 100}", split="test"), all_held_out)
    assert [named[f"{n + 100:016x}"] for n in range(50)] == [first[f"{n:016x}"] for n in range(50)]
    assert splits.frozen(s.blobs, {"author": "author-3"}, SHARES) == ("author", "author-3", first[f"{3:016x}"])


def test_a_named_split_counts_for_the_whole_group_from_then_on(s):
    decide(s, videos(1, author="ann", split="test"))
    assert set(decide(s, videos(20, 1, author="ann")).values()) == {"test"}


def test_a_named_split_counts_for_the_videos_of_its_group_that_come_with_it(s):
    for n in range(6):  # whatever split the hash of the author gives
        first, second = videos(2, 2 * n, author=f"author-{n}", split=lambda v: "" if v % 2 == 0 else "test")
        assert set(decide(s, [first, second]).values()) == {"test"}


def test_an_author_who_begins_with_a_released_copy_is_on_the_side_of_the_original(s, monkeypatch):
    original = rows.make_video("f" * 16, split="val")
    monkeypatch.setattr(type(s.tables), "videos_by_id", lambda tables, ids: [original])
    authors = [f"author-{n}" for n in range(6)]
    copies = videos(6, author=lambda n: authors[n], near_duplicate_of=original.video_id)
    assert set(decide(s, copies).values()) == {"val"}
    assert set(decide(s, videos(6, 6, author=lambda n: authors[n - 6])).values()) == {"val"}


@pytest.mark.parametrize("author", [{}, {"author": "ann"}], ids=["alone", "of an author"])
def test_an_original_that_no_batch_has_yet_is_on_the_side_of_its_released_copy(s, author):
    """Whichever is committed first, and an author's videos stay together."""
    for n in range(6):
        of = {key: f"{value}-{n}" for key, value in author.items()}
        (original,) = videos(1, 100 + n, **of)
        (copy,) = videos(1, n, near_duplicate_of=original.video_id)
        half = IngestSettings(held_out_share=0.5)
        sides = splits.decide(s, [copy], half, False, beside=[original])
        assert set(sides) == {copy.video_id}
        others = videos(5, 1000 + 10 * n, **of)
        found = decide(s, [original, *others], half)
        assert found[original.video_id] == sides[copy.video_id]
        assert not of or set(found.values()) == set(sides.values())
    side = {"val": "train", "train": "val"}[sides[copy.video_id]]
    assert splits.decide(s, [copy], half, False, begun={original.video_id: side}) == {copy.video_id: side}


def test_the_shares_hold_for_videos_that_come_one_by_one(s, monkeypatch):
    for shares in ((0.2, 0.05), (0.2, 0.2), (0.0, 0.1)):
        settings, found = IngestSettings(held_out_share=shares[0], test_share=shares[1]), []
        for n, video in enumerate(videos(100)):
            monkeypatch.setattr(type(s.tables), "row_count", lambda tables, name, n=n: n)
            found += decide(s, [video], settings).values()
        assert (found.count("val"), found.count("test")) == tuple(round(100 * share) for share in shares)


def test_the_environment_of_a_table_may_decide(s):
    settings = IngestSettings(split_by=("environment",))
    assert splits.group_of({"video_environment": "Indoor"}, settings) == ("environment", "indoor")


def test_the_splits_of_an_imported_dataset_stay_as_they_are(s):
    decide(s, videos(1, author="ann", split="val"))
    dataset = videos(10, 1, author="ann", split=lambda n: "val" if n % 2 else "train")
    assert decide(s, dataset, imported=True) == {video.video_id: video.split for video in dataset}


def test_two_processes_that_meet_an_author_at_once_give_it_one_split(s, monkeypatch):
    real = type(s.blobs).create

    def overtaken(blobs, key, data):
        if key.startswith("splits/"):
            real(blobs, key, data.replace(b'"train"', b'"test"').replace(b'"val"', b'"test"'))
        return real(blobs, key, data)

    monkeypatch.setattr(type(s.blobs), "create", overtaken)
    assert set(decide(s, videos(5, author=lambda n: str(n))).values()) == {"test"}


def test_pseudonyms_hold_in_one_store(s, tmp_path):
    with connect(Settings(home=tmp_path / "other")) as other:
        assert splits.pseudonym(s.blobs, "Ann") == splits.pseudonym(s.blobs, " ann") != splits.pseudonym(s.blobs, "Bob")
        assert splits.pseudonym(s.blobs, "Ann") != splits.pseudonym(other.blobs, "Ann")


def test_a_damaged_split_is_an_error_that_names_it(s):
    decide(s, videos(1, author="ann"))
    (key,) = s.blobs.keys("splits/")
    s.blobs.write(key, b'{"split": "both"}')
    with pytest.raises(BlobDamaged, match=key):
        decide(s, videos(1, author="ann"))


def test_shares_that_leave_nothing_to_train_on_are_refused():
    with pytest.raises(ValueError, match="their sum must be below 1"):
        IngestSettings(held_out_share=0.5, test_share=0.5)
