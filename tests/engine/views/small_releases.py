"""Stores with small releases: videos whose frames show their own number, and blocks as masklets."""

import hashlib

import numpy as np

from storage import rle
from storage.dataset import parts, releases
from storage.videos import video
from storage.wording import counted
from tests.storage import made_videos
from tests.storage.rows import make_masklet, make_video

H, W = made_videos.H, made_videos.W
FRAMES = 24


def block(x, y=20, size=16):
    """A mask: a square with its upper left corner at (x, y). None: an absent object."""
    mask = np.zeros((H, W), bool)
    if x is not None:
        mask[y : y + size, x : x + size] = True
    return mask


def masklet_of(masklet_id, masks, video_id="v1", batch_id="b1", **changes):
    """A masklet of masks bool (H, W), one for each annotated frame."""
    return make_masklet(
        masklet_id,
        video_id,
        batch_id,
        height=H,
        width=W,
        frame_idx=tuple(range(0, 4 * len(masks), 4)),
        rle=tuple(rle.encode(mask) for mask in masks),
        area_px=tuple(int(mask.sum()) for mask in masks),
        score=(0.9,) * len(masks),
        object_score=(5.0,) * len(masks),
        stability=(1.0,) * len(masks),
        **changes,
    )


def track(*places, **kwargs):
    """The masks of an object that is at these x, one for each annotated frame."""
    return [block(x, **kwargs) for x in places]


def publish(s, rows, name="release-0001", **of_video):
    """A release with these masklets, together with all that were published before. Videos are made as needed."""
    batch_id = rows[0].batch_id
    for video_id in sorted({row.video_id for row in rows} - {each.video_id for each in s.tables.videos()}):
        path = s.home / f"{video_id}.mp4"
        video.write(path, [made_videos.numbered(n) for n in range(FRAMES)], crf=1)
        content = path.read_bytes()
        made = make_video(
            video_id,
            batch_id=batch_id,
            height=H,
            width=W,
            frame_count=FRAMES,
            duration_s=FRAMES / 24,
            video_sha256=hashlib.sha256(content).hexdigest(),
            **of_video,
        )
        s.blobs.create(made.video_key, content)
        s.blobs.create(made.frames_key, b"[0.0]")
        parts.write_part(s.blobs, kind="videos", batch_id=batch_id, video_id=video_id, rows=[made])
    for video_id in sorted({row.video_id for row in rows}):
        mine = [row for row in rows if row.video_id == video_id]
        parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video_id, rows=mine)
    parts.commit_batch(s.blobs, s.tables, "videos", batch_id)
    assert parts.commit_batch(s.blobs, s.tables, "masklets", batch_id), counted(len(rows), "masklet")
    return releases.make(s.blobs, s.tables, name)
