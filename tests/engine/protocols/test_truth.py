"""True masklets in memory."""

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engine.datasets.labelled import Dataset, Entry
from engine.protocols import first_frame
from engine.protocols.truth import MOST_LOADED, Truth, nothing_held_out
from storage import rle
from tests.engine.true_releases import only_on


@pytest.mark.parametrize(
    ("in_the_list", "in_the_annotation", "loads", "said"),
    [
        (1000, 0, 0, "there are: train (1000)"),
        (0, 3, 3, "there are: train (3)"),
        (2, MOST_LOADED + 1, MOST_LOADED, f"there are: train ({MOST_LOADED + 2}) and 1 video more"),
        (0, 0, 0, "there are: no videos"),
    ],
)
def test_splits_are_counted_without_loading_a_whole_dataset(in_the_list, in_the_annotation, loads, said):
    loaded = []

    def load():
        loaded.append(1)
        return SimpleNamespace(split="train")

    splits = ["train"] * in_the_list + [None] * in_the_annotation
    data = Dataset("d", "SA-V", tuple(Entry(str(n), split, load) for n, split in enumerate(splits)), split="val")
    assert str(nothing_held_out(data, None)) == f"d: no video of the split val; {said}"
    assert len(loaded) == loads


def test_truths_stay_compressed_and_measure_as_their_masks_do(s, true_release):
    (row,) = [m for m in true_release.iter_masklets() if m.split == "val"][:1]
    video = s.video(row.video_id)
    late = only_on(*range(2, len(row.rle)))(row)
    masks = tuple(rle.decode(counts, row.height, row.width) for counts in late.rle)
    metrics = []
    for truth in (Truth.of(late), Truth(late.frame_idx, masks)):
        assert truth.first == 2
        with s.frames(video) as reader:
            hw = (video.height, video.width)
            found = first_frame.semi_supervised(
                s.model(s.checkpoint()), reader.read, hw, video.frame_count, {"a": truth, "b": Truth.of(row)}, "mask"
            )
        assert found["a"][0].count == len(row.rle) - 2 - 1  # the prompted frame counts, the last one does not
        assert found["a"][1].frames == len(row.rle) - 2 - 1
        metrics.append(found)
    assert metrics[0] == metrics[1]

    long = replace(row, height=1080, width=1920, frame_idx=tuple(range(100)), rle=(rle.empty(1080, 1920),) * 100)
    tracemalloc.start()
    assert Truth.of(long).first is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # all at once they are 207 MB
