"""transformers' own session with the methods of our tracker, and helpers that compare the two."""

import torch
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from model import inputs
from model.tracker import Tracker, TrackerConfig
from storage.records import Prompt

T, HW = 12, (96, 160)
LIBRARY_LIKE = TrackerConfig(history_frames=None, feed_back=False)


def click(frame_idx, *points, labels=None):
    return Prompt(frame_idx=frame_idx, points_xy=points, labels=labels or (1,) * len(points))


class Library:
    """transformers' session with the methods of our tracker."""

    def __init__(self, loaded, frames):
        self.loaded = loaded
        self.session = Sam2VideoInferenceSession(
            video=inputs.to_pixels(loaded, list(frames)), video_height=HW[0], video_width=HW[1], dtype=torch.float32
        )
        self.ids = {}

    def prompt(self, object_id, prompt):
        number = self.ids.setdefault(object_id, len(self.ids))
        index = self.session.obj_id_to_idx(number)
        if prompt.mask_rle is not None:
            mask = inputs.to_masks(self.loaded, [prompt], HW)[:, None]
            self.session.add_mask_inputs(index, prompt.frame_idx, mask)
            self.session.remove_point_inputs(index, prompt.frame_idx)
        else:
            clicks = inputs.to_clicks(self.loaded, [prompt], HW)
            points = {"point_coords": clicks.xy[:, None], "point_labels": clicks.labels[:, None]}
            self.session.add_point_inputs(index, prompt.frame_idx, points)
            self.session.remove_mask_inputs(index, prompt.frame_idx)
        self.session.obj_with_new_inputs = [number]
        out = self.loaded.model(self.session, frame_idx=prompt.frame_idx)
        return out.pred_masks[index, 0], out.object_score_logits[index]

    def condition_on(self, object_id, frame_idx):
        """Makes a conditioning frame of one that was tracked and then corrected."""
        output = self.session.output_dict_per_obj[self.session.obj_id_to_idx(self.ids[object_id])]
        output["cond_frame_outputs"][frame_idx] = output["non_cond_frame_outputs"].pop(frame_idx)

    def propagate(self, start, stop, reverse=False):
        for frame_idx in range(start, stop, -1 if reverse else 1):
            out = self.loaded.model(self.session, frame_idx=frame_idx, reverse=reverse)
            yield frame_idx, out.pred_masks[:, 0], out.object_score_logits.reshape(-1)


def conditioning_frames(tracker, object_id):
    """The frames that an object was prompted or corrected on, ascending."""
    return tuple(sorted(tracker._objects[object_id].conditioning))


def held_bytes(tracker):
    """What the objects of a tracker remember, in bytes; image features are not counted."""
    total = 0
    for memory in tracker._objects.values():
        total += len(memory.direction)
        for frame in [*memory.conditioning.values(), *memory.tracked.values()]:
            kept = [frame.pointer, frame.features, None if frame.answer is None else frame.answer.logits]
            total += sum(t.numel() * t.element_size() for t in kept if t is not None)
    return total


def tracker_of(loaded, frames, config=None):
    return Tracker(loaded, lambda i: frames[i], video_hw=HW, frame_count=len(frames), config=config)


def assert_same(ours, theirs):
    for mine, (frame_idx, logits, score) in zip(ours, theirs, strict=True):
        assert mine.frame_idx == frame_idx
        torch.testing.assert_close(mine.object_score, score, atol=1e-3, rtol=0)
        torch.testing.assert_close(mine.logits, logits, atol=1e-3, rtol=0)
