"""J&F by group: sizes, the gap, and groups that are too small."""

import json
from dataclasses import replace

import pytest

from engine.datasets import layouts
from engine.protocols import groups
from engine.protocols.slices import slices_of
from validation.gate import Metrics
from validation.paired import MaskletJF


def metrics(by_group, videos=5, each=3):
    """by_group: J&F by the name of a slice."""
    return Metrics.of(
        [
            MaskletJF(video_id=f"{name}-{v}", name=str(k), jf=jf, slices=(name, "size=small"))
            for name, jf in by_group.items()
            for v in range(videos)
            for k in range(each)
        ]
    )


def test_each_value_is_a_group_with_its_size_and_the_gap_is_between_the_best_and_the_worst():
    measured = {
        "1-click": metrics({"country=A": 0.5, "country=B": 0.8, "country=C": 0.6}),
        "mask": metrics({"country=A": 0.7, "country=B": 0.8, "country=C": 0.75}),
    }
    found = groups.grouped(measured, "country")
    assert [(g.value, g.masklets, g.videos) for g in found.groups] == [("A", 15, 5), ("B", 15, 5), ("C", 15, 5)]
    assert found.groups[0].jf["1-click"].mean == pytest.approx(0.5)
    assert found.gap == {"1-click": pytest.approx(0.3), "mask": pytest.approx(0.1)}


@pytest.mark.parametrize(("videos", "each"), [(2, 20), (4, 2)])
def test_groups_that_are_too_small_are_not_in_the_gap(videos, each):
    found = groups.grouped({"mask": metrics({"country=A": 0.1, "country=B": 0.9}, videos, each)}, "country")
    assert not any(group.is_large_enough for group in found.groups) and found.gap == {}


def test_an_unknown_column_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no object has the column 'age'; there are: country, size"):
        groups.grouped({"mask": metrics({"country=A": 0.5})}, "age")


def test_the_metadata_of_a_releases_videos_are_columns(true_release):
    said = {"video_environment": "Indoor", "tags": ["a"], "size": "4K"}
    row = replace(true_release.videos()[0], source_metadata=json.dumps(said))
    video = layouts._of_release(true_release, row)
    assert video.metadata == {"environment": "Indoor", "size": "4K"}
    found = slices_of(video, next(iter(video.objects)))
    assert "environment=Indoor" in found and "size=4K" not in found, "the size is that of the object"
