"""Counts in messages."""

from storage.wording import counted


def test_a_count_and_its_noun_agree():
    assert [counted(n, "video") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
    assert (
        counted(1, "batch") == "1 batch" and counted(2, "batch") == "2 batches" and counted(2, "person") == "2 people"
    )
