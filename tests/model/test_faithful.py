"""The tracker against transformers' session in the shape of every published model, at random weights."""

import numpy as np
import pytest
import torch
from library import HW, LIBRARY_LIKE, Library, T, assert_same, click, tracker_of
from transformers import Sam2VideoModel

from model import feed, load, meta, network
from model.memory_reader import Economy, MemoryReader, Past, _rows_of, can_read
from model.tracker import TrackerConfig
from storage import rle
from storage.records import Prompt


def published(shape, version, presence=1.0):
    """Random weights at 128 px whose answers differ between objects and frames."""
    config = load.resized_config(meta.config_of(shape, version=version), 128)
    torch.manual_seed(0)
    model = Sam2VideoModel(config)
    load.init_weights(model, 5, embedding_std=1.0)
    with torch.no_grad():
        model.mask_decoder.pred_obj_score_head.proj_out.bias += presence
    return load.wrap(model, name=shape)


@pytest.mark.parametrize("version", ["2", "2.1"])
@pytest.mark.parametrize("shape", list(meta.SHAPES))
def test_clicks_boxes_and_masks_on_several_frames_are_tracked_as_by_the_library(clip, shape, version):
    frames, masks = clip
    loaded = published(shape, version)
    assert can_read(loaded.model)  # it is the fast reading that is compared
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames)
    given = {
        "clicks": click(0, (40.0, 40.0), (120.0, 70.0), labels=(1, 0)),
        "box": Prompt(frame_idx=0, box_xyxy=(108.0, 54.0, 132.0, 86.0)),
        "late mask": Prompt(frame_idx=4, mask_rle=rle.encode(masks[4, 1])),
    }
    for object_id, prompt in given.items():
        library.prompt(object_id, prompt)
        tracker.prompt(object_id, prompt)
    ours = list(tracker.propagate(0, T))
    assert_same(ours, library.propagate(0, T))
    spread = torch.stack([frame.logits for frame in ours]).std()
    assert spread > 0.05  # they say something


@pytest.mark.parametrize("start", [T - 1, T // 2])
def test_backward_from_the_end_and_from_the_middle_is_the_librarys(clip, start):
    frames, masks = clip
    loaded = published("tiny", "2.1")
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames, LIBRARY_LIKE)
    for object_id, prompt in {
        "click": click(start, (70.0, 46.0)),
        "mask": Prompt(frame_idx=start, mask_rle=rle.encode(masks[start, 1])),
    }.items():
        library.prompt(object_id, prompt)
        tracker.prompt(object_id, prompt)
    assert_same(tracker.propagate(start, T), library.propagate(start, T))
    assert_same(tracker.propagate(start, -1, reverse=True), library.propagate(start, -1, reverse=True))


def a_past(model, objects=2, side=8, loud=1.0):
    torch.manual_seed(1)
    features = network.encode_images(model, torch.randn(1, 3, 16 * side, 16 * side))
    position = torch.randn(1, 64, side, side)
    maps = [loud * torch.randn(objects, 64, side, side) for _ in range(3)]
    spatial = [(back, network.Memory(m, position, m)) for back, m in zip((0, 2, 1), maps, strict=True)]
    pointers = [(back, torch.randn(objects, 256)) for back in (1, 2, 5)]
    return features, position, spatial, pointers


def read(reader, features, position, spatial, pointers, window=None):
    pasts = [
        Past(torch.stack([m.features[n] for _, m in spatial]), torch.stack([p[n] for _, p in pointers]), window)
        for n in range(2)
    ]
    backs = ([back for back, _ in spatial], [back for back, _ in pointers])
    return reader.read(features.top, features.top_position, position, *backs, pasts, 16)


@pytest.mark.parametrize("loud", [1.0, 40.0])
@torch.inference_mode()
def test_reading_memory_fast_is_reading_memory_even_where_exponents_are_large(loud):
    model = published("tiny", "2.1").model
    features, position, spatial, pointers = a_past(model, loud=loud)
    several = feed.expand(features, 2)
    wanted = network.attend_to_memory(model, several, spatial, pointers, pointer_span=16)
    found = read(MemoryReader(model), features, position, spatial, pointers)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert wanted[0].sub(wanted[1]).abs().max() > 0.1  # objects do differ


@torch.inference_mode()
def test_a_window_over_everything_is_no_window_and_outside_a_smaller_one_some_cells_stand_for_others():
    model = published("tiny", "2.1").model
    features, position, spatial, pointers = a_past(model)
    whole = read(MemoryReader(model), features, position, spatial, pointers)
    torch.testing.assert_close(read(MemoryReader(model), features, position, spatial, pointers, (0, 0, 8, 8)), whole)
    part = read(MemoryReader(model), features, position, spatial, pointers, (2, 3, 6, 7))
    assert not torch.allclose(part, whole, atol=1e-3)
    rows, stands_for = _rows_of((2, 3, 6, 7), 8, 8)
    assert len(rows) == 16 + 4 - 1  # the window and the middles of four squares, one of which is in the window
    grid = rows[stands_for].view(8, 8)
    own = torch.arange(64).view(8, 8)
    assert (grid[3:7, 2:6] == own[3:7, 2:6]).all() and grid[0, 0] == grid[1, 3] == own[2, 2]


@torch.inference_mode()
def test_pooling_loses_nothing_where_the_cells_of_a_square_are_equal():
    model = published("tiny", "2.1").model
    features, position, spatial, pointers = a_past(model)
    position = position.mean((2, 3), keepdim=True).expand_as(position)
    flat = [
        (
            back,
            network.Memory(
                m.features[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3), position, position
            ),
        )
        for back, m in spatial
    ]
    rotary = model.memory_attention.rotary_emb
    rotary.inv_freq.zero_()  # and where places do not matter
    exact = read(MemoryReader(model), features, position, flat, pointers)
    pooled = read(MemoryReader(model, Economy(pool_memory=2)), features, position, flat, pointers)
    torch.testing.assert_close(pooled, exact, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_products_of_8_bits_are_close_and_keep_no_common_part_of_the_keys():
    model = published("tiny", "2.1").model
    past = a_past(model)
    exact, small = read(MemoryReader(model), *past), read(MemoryReader(model, Economy(int8=True)), *past)
    assert not torch.equal(small, exact)
    assert (small - exact).abs().mean() / exact.abs().mean() < 1e-2
    for layer in model.memory_attention.layers:
        layer.cross_attn_image.k_proj.bias += 1000.0  # every key far from zero, in the same direction
    model.memory_attention.rotary_emb.inv_freq.zero_()  # which the rotary code leaves the same
    exact, small = read(MemoryReader(model), *past), read(MemoryReader(model, Economy(int8=True)), *past)
    assert (small - exact).abs().mean() / exact.abs().mean() < 1e-2


def test_economy_is_off_by_default_and_changes_masks_when_it_is_on(clip):
    frames, _ = clip
    loaded = published("tiny", "2.1")
    answers = []
    for config in (TrackerConfig(), TrackerConfig(economy=Economy()), TrackerConfig(economy=Economy(pool_memory=2))):
        tracker = tracker_of(loaded, frames, config)
        tracker.prompt("a", click(0, (40.0, 40.0)))
        answers.append(torch.stack([frame.logits for frame in tracker.propagate(0, 4)]))
    torch.testing.assert_close(answers[0], answers[1], atol=0, rtol=0)
    assert not torch.allclose(answers[0], answers[2])
    assert np.isfinite(answers[2].numpy()).all() and HW == (96, 160)
