"""The tracker against transformers' own session at the same weights, and the tracker's additional guarantees."""

import sys

import numpy as np
import pytest
import torch

from model import architecture, checkpoints
from model.fast.memory_reader import Economy
from model.features import FeatureCache
from model.network import NO_OBJECT_LOGIT
from model.tracker import NoPrompt, Tracker, TrackerConfig
from storage import rle
from storage.pixels import Rgb
from storage.records import Prompt
from tests.model.library import (
    HW,
    LIBRARY_LIKE,
    Library,
    T,
    assert_same,
    click,
    conditioning_frames,
    held_bytes,
    tracker_of,
)


def same_frame_prompts(masks):
    return {
        "click": click(0, (40.0, 40.0)),
        "clicks": click(0, (120.0, 70.0), (40.0, 40.0), (20.0, 80.0), labels=(1, 0, 0)),
        "box": Prompt(frame_idx=0, box_xyxy=(108.0, 54.0, 132.0, 86.0)),
        "box and click": Prompt(frame_idx=0, box_xyxy=(20.0, 20.0, 60.0, 60.0), points_xy=((30.0, 45.0),), labels=(1,)),
        "mask": Prompt(frame_idx=0, mask_rle=rle.encode(masks[0, 1])),
    }


@pytest.mark.parametrize("model", ["loaded", "doubtful"])
def test_objects_prompted_on_one_frame_are_tracked_as_by_the_library(clip, model, request):
    frames, masks = clip
    loaded = request.getfixturevalue(model)
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames)
    for object_id, prompt in same_frame_prompts(masks).items():
        logits, score = library.prompt(object_id, prompt)
        answer = tracker.prompt(object_id, prompt)
        assert answer.object_ids == (object_id,)
        torch.testing.assert_close(answer.logits[0], logits, atol=1e-3, rtol=0)
        torch.testing.assert_close(answer.object_score[0], score.reshape(()), atol=1e-3, rtol=0)
    ours = list(tracker.propagate(0, T))
    assert_same(ours, library.propagate(0, T))
    present = torch.stack([frame.object_score > 0 for frame in ours[1:]])
    assert present.all() if model == "loaded" else 0 < present.sum() < present.numel()


def test_objects_prompted_on_different_frames_are_tracked_as_by_the_library(loaded, clip):
    frames, masks = clip
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames)
    for object_id, prompt in [
        ("early", click(0, (40.0, 40.0))),
        ("late", click(5, (110.0, 70.0))),
        ("mask", Prompt(frame_idx=9, mask_rle=rle.encode(masks[9, 0]))),
    ]:
        library.prompt(object_id, prompt)
        tracker.prompt(object_id, prompt)
    assert_same(tracker.propagate(0, T), library.propagate(0, T))


def test_an_object_prompted_on_two_frames_is_tracked_as_by_the_library(loaded, clip):
    frames, masks = clip
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames)
    for prompt in (click(0, (40.0, 40.0)), Prompt(frame_idx=6, mask_rle=rle.encode(masks[6, 0]))):
        library.prompt("a", prompt)
        tracker.prompt("a", prompt)
    assert conditioning_frames(tracker, "a") == (0, 6)
    assert_same(tracker.propagate(0, T), library.propagate(0, T))


def test_tracking_backward_equals_the_library(loaded, clip):
    frames, masks = clip
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames)
    for object_id, prompt in [
        ("a", click(11, (95.0, 51.0))),
        ("b", Prompt(frame_idx=11, mask_rle=rle.encode(masks[11, 1]))),
    ]:
        library.prompt(object_id, prompt)
        tracker.prompt(object_id, prompt)
    assert_same(tracker.propagate(11, -1, reverse=True), library.propagate(11, -1, reverse=True))


def test_backward_after_forward_equals_the_library_when_nothing_is_forgotten(loaded, clip):
    frames, _ = clip
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames, LIBRARY_LIKE)
    library.prompt("a", click(6, (70.0, 46.0)))
    tracker.prompt("a", click(6, (70.0, 46.0)))
    assert_same(tracker.propagate(6, T), library.propagate(6, T))
    assert_same(tracker.propagate(6, -1, reverse=True), library.propagate(6, -1, reverse=True))


def test_a_correction_after_tracking_is_answered_as_by_the_library_and_then_kept(loaded, clip):
    frames, _ = clip
    library, tracker = Library(loaded, frames), tracker_of(loaded, frames, LIBRARY_LIKE)
    correction = click(7, (75.0, 47.0), (120.0, 20.0), labels=(1, 0))
    for system in (library, tracker):
        system.prompt("a", click(0, (40.0, 40.0)))
        list(system.propagate(0, T))
    logits, _ = library.prompt("a", correction)
    answer = tracker.prompt("a", correction)
    torch.testing.assert_close(answer.logits[0], logits, atol=1e-3, rtol=0)

    # The documented difference: the library's next pass overwrites the corrected frame, ours is conditioned by it,
    # as the library's pass is by its conditioning frames.
    assert conditioning_frames(tracker, "a") == (0, 7)
    library.condition_on("a", 7)
    again = list(tracker.propagate(0, T))
    assert torch.equal(again[7].logits, answer.logits)
    assert_same(again, library.propagate(0, T))


def test_a_frame_whose_memory_is_forgotten_can_still_be_corrected(loaded, clip):
    frames, _ = clip
    tracker = Tracker(loaded, lambda i: frames[i % T], video_hw=HW, frame_count=30)
    tracker.prompt("a", click(0, (40.0, 40.0)))
    list(tracker.propagate(0, 26))
    answer = tracker.prompt("a", click(3, (50.0, 43.0)))
    assert conditioning_frames(tracker, "a") == (0, 3) and answer.logits.isfinite().all()
    assert torch.equal(next(tracker.propagate(3, 5)).logits, answer.logits)


def test_refining_clicks_are_answered_with_the_mask_that_they_refine(loaded, clip):
    frames, _ = clip
    one, two = click(0, (40.0, 40.0)), click(0, (40.0, 40.0), (60.0, 60.0), labels=(1, 0))
    other = click(0, (20.0, 20.0), (60.0, 60.0), labels=(1, 0))
    refined, anew, at_once = (tracker_of(loaded, frames) for _ in range(3))
    refined.prompt("a", one)
    anew.prompt("a", other)
    answers = [tracker.prompt("a", two).logits for tracker in (refined, anew, at_once)]
    assert not torch.allclose(answers[0], answers[2], atol=1e-2)
    assert torch.equal(answers[1], answers[2])


def test_a_second_correction_of_a_frame_does_not_read_its_own_first_memory(loaded, clip):
    frames, _ = clip
    config = TrackerConfig(feed_back=False)
    first, second = tracker_of(loaded, frames, config), tracker_of(loaded, frames, config)
    for tracker in (first, second):
        tracker.prompt("a", click(0, (40.0, 40.0)))
        list(tracker.propagate(0, 6))
    second.prompt("a", click(5, (60.0, 10.0), labels=(0,)))
    final = click(5, (64.0, 45.0))
    torch.testing.assert_close(first.prompt("a", final).logits, second.prompt("a", final).logits, atol=1e-5, rtol=0)


def test_prompts_in_one_call_are_answered_as_in_many_calls(loaded, clip):
    frames, masks = clip
    prompts = same_frame_prompts(masks) | {f"point {i}": click(0, (10.0 + 8 * i, 50.0)) for i in range(5)}
    one_by_one = tracker_of(loaded, frames)
    together = tracker_of(loaded, frames, TrackerConfig(object_batch=3, lookahead=3))
    singly = [one_by_one.prompt(object_id, prompt).logits[0] for object_id, prompt in prompts.items()]
    answer = together.prompt_all(prompts)
    assert answer.object_ids == tuple(prompts)
    torch.testing.assert_close(answer.logits, torch.stack(singly), atol=1e-4, rtol=0)
    for a, b in zip(one_by_one.propagate(0, 5), together.propagate(0, 5), strict=True):
        order = [b.object_ids.index(object_id) for object_id in a.object_ids]
        torch.testing.assert_close(a.logits, b.logits[order], atol=1e-3, rtol=0)


def test_memory_does_not_grow_with_the_video(loaded, clip):
    frames, _ = clip
    tracker = Tracker(loaded, lambda i: frames[i % len(frames)], video_hw=HW, frame_count=40)
    for i in range(2):
        tracker.prompt(str(i), click(0, (40.0 + i, 40.0)))
    sizes, marks = [], []
    for _ in tracker.propagate(0, 36):
        sizes.append(held_bytes(tracker))
        marks.append(sum(sys.getsizeof(vars(state)["direction"]) for state in tracker._objects.values()))
    assert sizes[17] == sizes[35] and marks[0] == marks[35] < 2 * 40 * 4
    assert list(tracker.propagate(36, 40))[-1].frame_idx == 39


def test_a_frame_is_encoded_once_for_all_trackers_that_share_its_features(loaded, clip):
    frames, _ = clip
    read = []

    def source(frame_idx):
        read.append(frame_idx)
        return frames[frame_idx]

    cache = FeatureCache(loaded, source, size=4)
    trackers = [Tracker(loaded, cache, video_hw=HW, frame_count=T, config=TrackerConfig(lookahead=3)) for _ in range(2)]
    for i, tracker in enumerate(trackers):
        tracker.prompt("a", click(0, (40.0 + 5 * i, 40.0)))
    for _ in zip(*(tracker.propagate(0, T) for tracker in trackers), strict=True):
        pass
    assert sorted(read) == list(range(T))


def counting_cache(loaded, frames) -> tuple[FeatureCache, list[int]]:
    """A cache of two frames' features, and the list that receives the index of every frame that it reads."""
    read: list[int] = []

    def frame(i: int) -> Rgb:
        read.append(i)
        shown: Rgb = frames[i]
        return shown

    return FeatureCache(loaded, frame, size=2), read


def test_the_least_recently_used_features_are_evicted_first(loaded, clip):
    frames, _ = clip
    cache, read = counting_cache(loaded, frames)
    for frame_idx in (3, 2, 3, 1, 3, 2):
        cache.get(frame_idx)
    assert read == [3, 2, 1, 2]


def test_encoding_a_cached_frame_ahead_marks_it_as_recently_used(loaded, clip):
    frames, _ = clip
    cache, read = counting_cache(loaded, frames)
    for frame_idx in (3, 2, 3, 1, 3):
        list(cache.encoding(frame_idx))
    assert read == [3, 2, 1]


def test_propagation_of_some_objects_leaves_the_others_alone(loaded, clip):
    frames, _ = clip
    tracker, alone = tracker_of(loaded, frames), tracker_of(loaded, frames)
    for object_id, x in (("a", 40.0), ("b", 120.0)):
        tracker.prompt(object_id, click(0, (x, 60.0)))
    alone.prompt("b", click(0, (120.0, 60.0)))
    size = held_bytes(tracker)
    some = list(tracker.propagate(0, 4, objects=["b"]))
    assert {frame.object_ids for frame in some} == {("b",)} and held_bytes(tracker) > size
    for a, b in zip(some, alone.propagate(0, 4), strict=True):
        torch.testing.assert_close(a.logits, b.logits, atol=1e-4, rtol=0)


def test_after_removing_a_prompt_or_an_object_it_has_no_effect(loaded, clip):
    frames, _ = clip
    tracker, never = tracker_of(loaded, frames), tracker_of(loaded, frames)
    for system in (tracker, never):
        system.prompt("a", click(0, (40.0, 40.0)))
    tracker.prompt("a", click(4, (10.0, 10.0)))
    tracker.prompt("b", click(0, (20.0, 10.0)))
    tracker.remove("b")
    tracker.remove("a", 4)
    assert tracker.object_ids == ("a",)
    for a, b in zip(tracker.propagate(0, 6), never.propagate(0, 6), strict=True):
        assert torch.equal(a.logits, b.logits)
    tracker.remove("a", 0)
    with pytest.raises(NoPrompt, match="'a' has no prompt left"):
        tracker.propagate(0, 3)


def test_only_the_closest_conditioning_frames_are_read_where_that_is_asked_for(loaded, clip):
    frames, masks = clip
    config = TrackerConfig(max_conditioning=2)
    few, all_of_them = tracker_of(loaded, frames, config), tracker_of(loaded, frames)
    for frame_idx in (0, 3, 8):
        prompt = Prompt(frame_idx=frame_idx, mask_rle=rle.encode(masks[frame_idx, 0]))
        few.prompt("a", prompt)
        all_of_them.prompt("a", prompt)
    reading = few._objects["a"].reading(5, few._limits, reverse=False)
    assert reading.spatial_back == (0, 0, 5)  # frames 3 and 8, and frame 0 as an ordinary memory
    assert reading.pointer_back == (5, 2)
    far = all_of_them._objects["a"].reading(5, all_of_them._limits, reverse=False)
    assert far.spatial_back == (0, 0, 0) and far.pointer_back == (5, 2)


def test_masks_have_the_videos_size_and_an_absent_object_has_an_empty_mask(doubtful, clip):
    frames, _ = clip
    tracker = tracker_of(doubtful, frames)
    tracker.prompt_all({str(i): click(0, (10.0 + 30 * i, 50.0)) for i in range(5)})
    absent = 0
    for frame in tracker.propagate(0, T):
        masks, stability = frame.masks(HW), frame.stability()
        assert masks.shape == (5, *HW) and masks.dtype == np.bool_
        assert stability.shape == frame.iou.shape == frame.object_score.shape == (5,)
        for row in (frame.object_score <= 0).nonzero()[:, 0].tolist():
            absent += 1
            assert not masks[row].any() and stability[row] == 1 and (frame.logits[row] == NO_OBJECT_LOGIT).all()
    assert absent


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(frame_idx=0), "needs points, a box or a mask"),
        (click(99, (1.0, 1.0)), "frame 99 is not in the video of 12 frames"),
        (click(0, (161.0, 1.0)), r"point \(161.0, 1.0\) is outside the 160x96 frame"),
        (Prompt(frame_idx=0, points_xy=((1.0, 1.0),)), "1 point but 0 labels"),
        (click(0, (1.0, 1.0), labels=(3,)), r"labels must be 0 or 1, got \(3,\)"),
        (Prompt(frame_idx=0, box_xyxy=(5.0, 5.0, 5.0, 9.0)), "is empty or outside"),
        (Prompt(frame_idx=0, mask_rle=b"", box_xyxy=(0.0, 0.0, 5.0, 9.0)), "not both"),
    ],
)
def test_an_invalid_prompt_is_refused_with_its_value(loaded, clip, prompt, message):
    with pytest.raises(ValueError, match=message):
        tracker_of(loaded, clip[0]).prompt("a", prompt)


def test_tracking_without_a_prompt_or_off_the_video_is_refused(loaded, clip):
    tracker = tracker_of(loaded, clip[0])
    with pytest.raises(NoPrompt, match="no object has been prompted"):
        tracker.propagate(0, 5)
    tracker.prompt("a", click(0, (40.0, 40.0)))
    with pytest.raises(ValueError, match="frame 12 is not in the video"):
        tracker.propagate(0, 13)
    with pytest.raises(ValueError, match="no object 'b'"):
        tracker.propagate(0, 5, objects=["b"])
    with pytest.raises(ValueError, match="one frame"):
        tracker.prompt_all({"a": click(0, (1.0, 1.0)), "b": click(1, (1.0, 1.0))})
    assert list(tracker.propagate(5, 5)) == []


def in_half_precision(loaded):
    """A copy of the tiny model in bfloat16."""
    model = torch.nn.Module.to(architecture.resized(loaded.model, 128), dtype=torch.bfloat16)
    return checkpoints.wrap(model, name="half")


def test_half_precision_runs_through_the_memory_and_answers_the_prompt_as_full_precision_does(loaded, clip):
    """On random weights the rounding grows from frame to frame: only the prompted frame can be compared."""
    frames, _ = clip
    half, full = tracker_of(in_half_precision(loaded), frames), tracker_of(loaded, frames)
    answers = [tracker.prompt("a", click(0, (40.0, 40.0))).masks(HW) for tracker in (half, full)]
    assert np.mean(answers[0] == answers[1]) > 0.9
    for answer in half.propagate(0, 4):
        assert answer.logits.isfinite().all() and answer.object_score.isfinite().all()


def recall(tracker, known, **more):
    for _ in tracker.recalling("it", known, **more):
        pass


def test_half_precision_takes_masks_on_a_cpu(loaded, clip):
    frames, masks = clip
    tracker = tracker_of(in_half_precision(loaded), frames)
    counts = rle.encode(masks[0, 0])
    given = tracker.prompt("a", Prompt(frame_idx=0, mask_rle=counts)).masks(HW)[0]
    assert np.mean(given == masks[0, 0]) > 0.95
    assert next(tracker.propagate(1, 2)).logits.isfinite().all()
    for _ in tracker.recalling("a", {2: counts}, about=2):
        pass
    assert tracker.prompt("a", click(2, (40.0, 40.0))).logits.isfinite().all()


def test_economy_is_refused_if_the_model_does_not_support_it(loaded, clip, monkeypatch):
    frames, _ = clip
    monkeypatch.setattr(loaded.model.config, "memory_attention_num_attention_heads", 2)
    tracker_of(loaded, frames)
    with pytest.raises(ValueError, match="one memory head on a CPU"):
        tracker_of(loaded, frames, TrackerConfig(economy=Economy(window_margin=1.0)))


def test_a_copied_object_tracks_like_the_original_and_is_corrected_separately(loaded, clip):
    frames, _ = clip
    one, other = tracker_of(loaded, frames), tracker_of(loaded, frames)
    for tracker in (one, other):
        tracker.prompt("a", click(0, (40.0, 40.0)))
        list(tracker.propagate(0, 4))
    one.copy("a", "b")
    correction = click(3, (60.0, 10.0), labels=(0,))
    torch.testing.assert_close(one.prompt("b", correction).logits, other.prompt("a", correction).logits)
    assert conditioning_frames(one, "a") == (0,) and conditioning_frames(one, "b") == (0, 3)
    apart = list(one.propagate(4, 8, objects=["b"]))  # the copy forgets only its own memories
    for a, b in zip(apart, other.propagate(4, 8), strict=True):
        torch.testing.assert_close(a.logits, b.logits)
    untouched = tracker_of(loaded, frames)
    untouched.prompt("a", click(0, (40.0, 40.0)))
    list(untouched.propagate(0, 4))
    for a, b in zip(one.propagate(4, 8, objects=["a"]), untouched.propagate(4, 8), strict=True):
        torch.testing.assert_close(a.logits, b.logits)
    with pytest.raises(ValueError, match="'b' already exists"):
        one.copy("a", "b")


def test_recalled_masks_replace_tracked_ones(loaded, clip):
    """One tracker tracked the frames, the other only gets their masks: both continue with nearly the same masks."""
    frames, truth = clip
    hw, count = frames.shape[1:3], len(frames)
    start = Prompt(frame_idx=0, mask_rle=rle.encode(truth[0, 0]))

    def new():
        tracker = Tracker(loaded, frames.__getitem__, video_hw=hw, frame_count=count)
        tracker.prompt("it", start)
        return tracker

    one = new()
    made = {a.frame_idx: a for a in one.propagate(0, 3)}
    other = new()
    known = {i: rle.encode(made[i].masks(hw)[0]) for i in (1, 2)}
    recall(other, {0: rle.encode(truth[0, 0]), **known})
    assert conditioning_frames(other, "it") == (0,), "a conditioning frame stays one"
    alone = new()
    expected, told, untold = (next(t.propagate(3, 4)).logits for t in (one, other, alone))
    assert (told - expected).abs().mean() < 0.5 * (untold - expected).abs().mean()


def test_a_recall_forgets_frames_that_it_does_not_name(loaded, clip):
    frames, truth = clip
    hw = frames.shape[1:3]
    tracker = Tracker(loaded, frames.__getitem__, video_hw=hw, frame_count=len(frames))
    counts = rle.encode(truth[0, 0])
    tracker.prompt("it", Prompt(frame_idx=0, mask_rle=counts))
    held = held_bytes(tracker)
    recall(tracker, {1: counts, 2: counts})
    more = held_bytes(tracker)
    recall(tracker, {2: counts})
    assert held < held_bytes(tracker) < more
    list(tracker.propagate(3, 4))
    recall(tracker, {}, keep=[3])
    kept = held_bytes(tracker)
    recall(tracker, {})
    assert held_bytes(tracker) == held < kept
    with pytest.raises(ValueError, match="not in the video"):
        recall(tracker, {}, about=99)


def test_a_prompt_that_is_not_remembered_gets_the_same_answer_and_changes_nothing(loaded, clip):
    frames, truth = clip
    tracker, other = tracker_of(loaded, frames), tracker_of(loaded, frames)
    for system in (tracker, other):
        system.prompt("it", Prompt(frame_idx=0, mask_rle=rle.encode(truth[0, 0])))
    size = held_bytes(tracker)
    found = tracker.prompt("it", click(2, (40.0, 40.0)), remember=False)
    assert torch.equal(found.logits, other.prompt("it", click(2, (40.0, 40.0))).logits)
    assert held_bytes(tracker) == size < held_bytes(other)
    assert conditioning_frames(tracker, "it") == (0,)


def test_a_click_after_a_recall_does_not_depend_on_what_the_tracker_did_before(loaded, clip):
    """Before, it tracked in the other direction and prepared to correct a neighbouring frame."""
    frames, truth = clip
    known = {i: rle.encode(truth[i, 0]) for i in (2, 3)}

    def asked(before):
        tracker = tracker_of(loaded, frames)
        tracker.prompt("it", Prompt(frame_idx=9, mask_rle=rle.encode(truth[9, 0])))
        before(tracker)
        recall(tracker, known, about=4)
        return tracker.prompt("it", click(4, (40.0, 40.0))).logits

    expected = asked(lambda tracker: None)
    for before in (
        lambda tracker: list(tracker.propagate(8, 1, reverse=True)),
        lambda tracker: recall(tracker, {3: known[3]}, about=3),
    ):
        torch.testing.assert_close(asked(before), expected, atol=1e-4, rtol=0)


def test_a_click_on_a_frame_that_is_recalled_refines_its_mask(loaded, clip):
    frames, truth = clip
    hw = frames.shape[1:3]
    click = Prompt(frame_idx=2, points_xy=((40.0, 40.0),), labels=(1,))

    def asked(mask):
        tracker = Tracker(loaded, frames.__getitem__, video_hw=hw, frame_count=len(frames))
        recall(tracker, {2: rle.encode(mask)}, about=2)
        return tracker.prompt("it", click).logits

    assert not torch.allclose(asked(truth[2, 0]), asked(~truth[2, 0]), atol=1e-3)
