"""The tracker against transformers' session in the shape of every published model, at random weights."""

import copy
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from transformers import Sam2VideoModel
from transformers.initialization import no_init_weights

from benchmarks import tracker as tracker_benchmark
from benchmarks.models import grids
from engine.synthetic import micro_clips
from model import architecture, checkpoints, inputs, meta_checkpoint, network
from model.fast import memory_reader
from model.fast.memory_reader import Economy, MemoryReader, Past, _rows_of, _whole_squares, can_read
from model.memory_attention import search_window
from model.proposals import Scale
from model.tracker import TrackerConfig
from storage import rle
from storage.records import Prompt
from tests.model.library import HW, LIBRARY_LIKE, Library, T, assert_same, click, tracker_of


def published(shape, version, presence=1.0):
    """Random weights at 128 px whose answers differ between objects and frames."""
    config = architecture.resized_config(meta_checkpoint.config_of(shape, version=version), 128)
    with no_init_weights():  # `init_weights` sets every one
        model = Sam2VideoModel(config)
    architecture.init_weights(model, 5, embedding_std=1.0)
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias.add_(presence)
    return checkpoints.wrap(model, name=shape)


def encodes_each_frame_once(model):
    """Both systems run the encoder's blocks, which take most of the time: a block keeps its output of an input."""

    def remembering(forward):
        known = {}

        def remembered(x, **options):
            key = x.detach().numpy().tobytes()
            if key not in known:
                known[key] = forward(x, **options)
            return known[key]

        return remembered

    for block in model.vision_encoder.backbone.blocks:
        block.forward = remembering(block.forward)


@pytest.mark.parametrize(("shape", "version"), [("tiny", "2"), *((shape, "2.1") for shape in meta_checkpoint.SHAPES)])
def test_clicks_boxes_and_masks_on_several_frames_are_tracked_as_by_the_library(clip, shape, version):
    frames, masks = clip
    if shape != "tiny":
        frames = frames[:6]  # shapes differ in their encoders; tiny shows that old memories are dropped alike
    loaded = published(shape, version)
    encodes_each_frame_once(loaded.model)
    assert can_read(loaded.model)  # this compares the fast memory reader
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames)
    given = {
        "clicks": click(0, (40.0, 40.0), (120.0, 70.0), labels=(1, 0)),
        "box": Prompt(frame_idx=0, box_xyxy=(108.0, 54.0, 132.0, 86.0)),
        "late mask": Prompt(frame_idx=4, mask_rle=rle.encode(masks[4, 1])),
    }
    for object_id, prompt in given.items():
        library.prompt(object_id, prompt)
        tracker.prompt(object_id, prompt)
    ours = list(tracker.propagate(0, len(frames)))
    assert_same(ours, library.propagate(0, len(frames)))
    spread = torch.stack([frame.logits for frame in ours]).std()
    assert spread > 0.05  # the masks are not constant


@pytest.mark.parametrize(("start", "version"), [(T - 1, "2.1"), (T // 2, "2.1"), (T // 2, "2")])
def test_tracking_backward_from_the_end_and_from_the_middle_equals_the_library(clip, start, version):
    frames, masks = clip
    loaded = published("tiny", version)
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames, LIBRARY_LIKE)
    for object_id, prompt in {
        "click": click(start, (70.0, 46.0)),
        "mask": Prompt(frame_idx=start, mask_rle=rle.encode(masks[start, 1])),
    }.items():
        library.prompt(object_id, prompt)
        tracker.prompt(object_id, prompt)
    assert_same(tracker.propagate(start, T), library.propagate(start, T))
    assert_same(tracker.propagate(start, -1, reverse=True), library.propagate(start, -1, reverse=True))


@pytest.mark.parametrize("version", ["2", "2.1"])
def test_a_correction_is_answered_by_the_library_and_conditions_the_others_alike(clip, version):
    frames, _ = clip
    loaded = published("tiny", version)
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames, LIBRARY_LIKE)
    correction, stop = click(3, (55.0, 43.0), (120.0, 20.0), labels=(1, 0)), 6
    for system in (library, tracker):
        system.prompt("a", click(0, (40.0, 40.0)))
        list(system.propagate(0, stop))
    logits, _ = library.prompt("a", correction)
    torch.testing.assert_close(tracker.prompt("a", correction).logits[0], logits, atol=1e-3, rtol=0)
    library.condition_on("a", 3)
    assert_same(tracker.propagate(0, stop), library.propagate(0, stop))


def a_past(model, objects=2, side=8, loud=1.0):
    """Memories for a model of any precision: the same numbers, rounded to it."""
    torch.manual_seed(1)

    def drawn(*shape):
        return torch.randn(*shape).to(model.dtype)

    features = network.encode_images(model, drawn(1, 3, 16 * side, 16 * side))
    position = drawn(1, 64, side, side)
    maps = [loud * drawn(objects, 64, side, side) for _ in range(3)]
    spatial = [(back, network.FrameMemory(m, position, m)) for back, m in zip((0, 2, 1), maps, strict=True)]
    pointers = [(back, drawn(objects, 256)) for back in (1, 2, 5)]
    return features, position, spatial, pointers


def read(reader, features, position, spatial, pointers, window=None):
    pasts = [
        Past(torch.stack([m.features[n] for _, m in spatial]), torch.stack([p[n] for _, p in pointers]), window)
        for n in range(2)
    ]
    backs = ([back for back, _ in spatial], [back for back, _ in pointers])
    return reader.read(features.top, features.top_position, position, *backs, pasts, 16)


def doubled(value):
    """The same numbers in float64, in tuples, lists and records of tensors."""
    if isinstance(value, torch.Tensor):
        return value.double()
    if isinstance(value, list | tuple):
        return type(value)(map(doubled, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: doubled(getattr(value, field.name)) for field in fields(value)})
    return value


@pytest.mark.parametrize("loud", [1.0, 40.0])
@torch.inference_mode()
def test_reading_memory_fast_is_as_exact_as_the_library_even_where_exponents_are_large(loud):
    """Measured against float64: rounding differs between CPUs, and grows with the exponents for both ways alike."""

    def attended(model, features, spatial, pointers):
        return network.attend_to_memory(model, inputs.expand(features, 2), spatial, pointers, pointer_span=16)

    model = published("tiny", "2.1").model
    features, position, spatial, pointers = a_past(model, loud=loud)
    wanted = attended(model, features, spatial, pointers)
    found = read(MemoryReader(model), features, position, spatial, pointers)
    true = attended(copy.deepcopy(model).double(), *doubled((features, spatial, pointers)))
    rounding = (wanted - true).abs().max()
    assert rounding < 1e-5 * loud
    assert (found - true).abs().max() < 2 * rounding
    assert wanted[0].sub(wanted[1]).abs().max() > 0.1  # the objects differ


@torch.inference_mode()
def test_a_window_over_the_whole_frame_changes_nothing_and_a_smaller_one_pools_the_cells_outside():
    model = published("tiny", "2.1").model
    features, position, spatial, pointers = a_past(model)
    whole = read(MemoryReader(model), features, position, spatial, pointers)
    torch.testing.assert_close(read(MemoryReader(model), features, position, spatial, pointers, (0, 0, 8, 8)), whole)
    part = read(MemoryReader(model), features, position, spatial, pointers, (2, 3, 6, 7))
    assert not torch.allclose(part, whole, atol=1e-3)
    assert _whole_squares((2, 5, 4, 7), 10, 9) == (0, 4, 4, 8) and _whole_squares((5, 9, 9, 10), 10, 9) == (4, 8, 9, 10)
    rows, stands_for = _rows_of((2, 3, 6, 7), 8, 8)
    assert len(rows) == 16 + 4 - 1  # the window and the middles of four squares, one of which is in the window
    grid = rows[stands_for].view(8, 8)
    own = torch.arange(64).view(8, 8)
    assert (grid[3:7, 2:6] == own[3:7, 2:6]).all() and grid[0, 0] == grid[1, 3] == own[2, 2]


@torch.inference_mode()
def test_windows_in_half_precision_have_few_sizes(monkeypatch):
    model = published("tiny", "2.1").model.to(torch.bfloat16)
    features, position, spatial, pointers = a_past(model)
    counts: set[int] = set()
    feed_forward = memory_reader._Layer.feed_forward

    def counted(self, x, b):
        counts.add(len(x))
        return feed_forward(self, x, b)

    monkeypatch.setattr(memory_reader._Layer, "feed_forward", counted)
    for size in range(1, 8):
        read(MemoryReader(model), features, position, spatial, pointers, (0, 0, size, 3))
    assert counts == {16 + 3, 32 + 2}  # a square or two of cells, and one cell for each of the other squares


@torch.inference_mode()
def test_pooling_loses_nothing_where_the_cells_of_a_square_are_equal():
    model = published("tiny", "2.1").model
    features, position, spatial, pointers = a_past(model)
    position = position.mean((2, 3), keepdim=True).expand_as(position)
    flat = [
        (
            back,
            network.FrameMemory(
                m.features[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3), position, position
            ),
        )
        for back, m in spatial
    ]
    rotary = model.memory_attention.rotary_emb
    rotary.inv_freq.zero_()  # and where the position encoding is the same everywhere
    exact = read(MemoryReader(model), features, position, flat, pointers)
    pooled = read(MemoryReader(model, Economy(pool_memory=2)), features, position, flat, pointers)
    torch.testing.assert_close(pooled, exact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("economy", [Economy(), Economy(pool_memory=2)])
@torch.inference_mode()
def test_reading_in_half_precision_differs_by_its_rounding_only(economy):
    model = published("tiny", "2.1").model
    exact = read(MemoryReader(model, economy), *a_past(model))
    model.to(torch.bfloat16)
    features, position, spatial, pointers = a_past(model)
    half = read(MemoryReader(model, economy), features, position, spatial, pointers)
    assert half.dtype == torch.bfloat16
    error = (half - exact).abs().mean()
    assert error / exact.abs().mean() < 2e-2
    if economy == Economy():  # the library's own reading in half precision differs as much
        theirs = network.attend_to_memory(model, inputs.expand(features, 2), spatial, pointers, pointer_span=16)
        assert error < 1.5 * (theirs - exact).abs().mean()


def on_its_third_frame(loaded, clip, economy, last=None):
    """A tracker of an object whose masks on the first two frames were given."""
    frames, masks = clip
    tracker = tracker_of(loaded, frames, TrackerConfig(economy=economy))
    tracker.prompt("a", Prompt(frame_idx=0, mask_rle=rle.encode(masks[0, 0])))
    for _ in tracker.recalling("a", {1: rle.encode(masks[1, 0] if last is None else last)}):
        pass
    return tracker


def test_economy_is_off_by_default_and_changes_masks_when_it_is_on(clip):
    loaded = published("tiny", "2.1")

    def tracked(economy):
        return next(on_its_third_frame(loaded, clip, economy).propagate(2, 3)).logits

    exact = tracked(TrackerConfig().economy)
    assert torch.equal(exact, tracked(Economy()))
    for economy in (Economy(pool_memory=2), Economy(window_margin=0.0, window_least=0)):
        economical = tracked(economy)
        assert not torch.equal(exact, economical) and economical.isfinite().all(), economy


def test_an_object_is_looked_for_around_its_last_mask(loaded, clip):
    def window(mask, **economy):
        tracker = on_its_third_frame(loaded, clip, Economy(**economy), mask)
        reading = tracker._objects["a"].reading(2, tracker._limits, reverse=False)
        return search_window(reading, Economy(**economy), 8)

    mask = np.zeros(HW, bool)  # 96 x 160, of which a cell of the 8 x 8 is 12 x 20
    mask[37:58, 61:98] = True  # cells 3 and 4 both ways
    assert window(mask, window_margin=0.0, window_least=0) == (3, 3, 5, 5)
    assert window(mask, window_margin=0.5, window_least=0) == (2, 2, 6, 6)  # half of two cells a side
    assert window(mask, window_margin=0.0, window_least=2) == (1, 1, 7, 7)
    assert window(mask, window_margin=9.0, window_least=0) == (0, 0, 8, 8)
    assert window(mask) is None  # the whole frame if there is no last mask
    assert window(np.zeros(HW, bool), window_margin=0.5) is None  # and if the last mask is empty


def test_the_benchmark_measures_time_and_quality_and_names_every_figure(loaded, monkeypatch):
    read, ways = MemoryReader.read, []

    def spied(reader, *args):
        ways.append((reader._model.dtype, reader._economy, *{past.window for past in args[5]}))
        return read(reader, *args)

    def ways_of(work):
        ways.clear()
        return work(), set(ways)

    monkeypatch.setattr(MemoryReader, "read", spied)
    monkeypatch.setattr(micro_clips, "HELD_OUT_SCENE", replace(micro_clips.HELD_OUT_SCENE, frames=3, cut=0.0))
    compared = tracker_benchmark.ways(loaded)
    timed, in_time = ways_of(lambda: tracker_benchmark.speed(compared, 2, 4, lambda line: None))
    priced, in_price = ways_of(lambda: tracker_benchmark.price(compared, 1))
    grown, in_growth = ways_of(lambda: tracker_benchmark.growth(compared, 2, 5))
    assert in_time == in_price == in_growth == {(of.dtype, c.economy, None) for of, c in compared.values()}
    assert len(in_time) == 2
    assert timed["ratio_exact_2"] > 0 and timed["ratio_economy_2"] > 0 and timed["max_abs_logit_diff"] < 1e-3
    assert set(timed["module_seconds_per_frame"]) == {"library", "exact", "economy"}
    for parts in timed["module_seconds_per_frame"].values():
        assert set(parts) == {"encoder", "memory attention", "decoder", "memory encoder"} and min(parts.values()) > 0
    assert set(priced) == {"economy_mean_iou", "economy_jf_drop", "jf_exact", "price_clips"}
    assert grown["growth_frames"] == 5 and "rss_growth_mb" in grown
    assert tracker_benchmark.click_latency(loaded, 1)["click_p95_ms"] > 0

    half = checkpoints.wrap(
        torch.nn.Module.to(architecture.resized(loaded.model, 128), dtype=torch.bfloat16), name="half"
    )
    only = tracker_benchmark.ways(half)
    assert list(only) == ["exact"] and tracker_benchmark.price(only, 1) == {}
    assert tracker_benchmark.ways(loaded, window=1.0)["economy"][1].economy.window_margin == 1.0


def test_the_benchmark_of_grids_compares_with_the_library_and_says_how_memory_grew(loaded, monkeypatch):
    monkeypatch.setattr(grids, "QUICK", (Scale(crops_per_side=1, points_per_side=9),))
    found = grids.measure(loaded, tracker_benchmark.noise(128, 1)[0], quick=True)
    assert set(found) == {"grid_ratio", "grid_points", "grid_max_abs_diff", "grid_peak_growth_mb"}
    assert found["grid_points"] == 81 and found["grid_ratio"] > 0 and found["grid_max_abs_diff"] < 1e-3
    with grids.peak_mb(loaded) as peaks:  # more than the allocator can have kept from earlier tests
        np.ones(1024 * 2**20, np.uint8).sum()
    assert peaks[0] > 1000
