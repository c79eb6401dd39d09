"""The model of live refinement: clicks and propagations of many people's tickets over a few open videos.

Refinement works on the annotated frames alone, 6 a second: what is tracked is what is kept. A ticket's tracker is only
a cache: whatever the draft says is put into its memory before it is asked, so it can be dropped at any time. A frame
that a person settled conditions the others by its mask, whoever answered the clicks, in phase 3 as in phase 2. A frame
that this tracker tracked is remembered as it was tracked while its mask stands: another one is told the mask, which
comes to nearly the same.
Called from one thread (`annotation_queue.refine.Turns`).
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

from annotation_queue.draft import Draft, FrameMask
from annotation_queue.errors import NoSuchVideo
from engine.services import Services
from storage import rle
from storage.pixels import Rgb
from storage.records import Prompt
from storage.video import FrameReader

if TYPE_CHECKING:
    from engine.registry import Checkpoint
    from model.checkpoints import LoadedModel
    from model.features import FeatureCache
    from model.frame_masks import FrameMasks
    from model.tracker import Tracker

OPEN_VIDEOS = 16
OPEN_TICKETS = 32
NEAREST = 8  # settled masks around a frame that are put into the tracker's memory; it reads fewer
IT = "it"  # a ticket is about one object


class _Videos:
    """Frames of the videos that people work in; what was read the longest ago is closed."""

    def __init__(self, s: Services) -> None:
        self._s = s
        self._open: OrderedDict[str, FrameReader] = OrderedDict()

    def read(self, place: tuple[str, int]) -> Rgb:
        """A frame of a video, by the ids of both. Raises NoSuchVideo."""
        video_id, frame_idx = place
        if video_id not in self._open:
            try:
                video = self._s.video(video_id)
            except ValueError as error:
                raise NoSuchVideo(str(error)) from None
            self._open[video_id] = FrameReader(self._s.blobs.fetch(video.video_key))
        self._open.move_to_end(video_id)
        while len(self._open) > OPEN_VIDEOS:
            self._open.popitem(last=False)[1].close()
        return self._open[video_id].read(frame_idx)

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


class _Ticket:
    """The tracker of a ticket's object. It knows the annotated frames by their place."""

    def __init__(self, features: FeatureCache, video_id: str, draft: Draft) -> None:
        from model.tracker import Tracker, TrackerConfig

        self.features = features.at([(video_id, frame) for frame in draft.frame_idx])
        self.tracker: Tracker = Tracker(
            features.loaded,
            self.features,
            video_hw=(draft.height, draft.width),
            frame_count=len(draft.frame_idx),
            config=TrackerConfig(history_frames=None),
        )
        self.place = {frame: n for n, frame in enumerate(draft.frame_idx)}
        self.held: dict[int, bytes] = {}  # conditioning frames by place, with the mask that each was prompted with
        self.tracked: dict[int, bytes] = {}  # frames by place that this tracker tracked, with what came out


class _Pinned:
    """`annotation_queue.refine.Pinned` over one checkpoint: its embeddings, and the trackers of tickets."""

    def __init__(self, served: Checkpoint, features: FeatureCache) -> None:
        self.served, self.features = served, features
        self._tickets: OrderedDict[str, _Ticket] = OrderedDict()

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint that answers."""
        return self.served.name

    @property
    def round(self) -> int:
        """The round that made it."""
        return self.served.round

    def click(
        self, ticket_id: str, video_id: str, draft: Draft, prompt: Prompt, *, memory: bool
    ) -> Generator[FrameMask | None]:
        """Answers a prompt on its frame; with `memory`, in the light of the masks around it."""
        ticket = self._ticket(ticket_id, video_id, draft)
        place = ticket.place[prompt.frame_idx]
        asked = Prompt(
            frame_idx=place,
            points_xy=prompt.points_xy,
            labels=prompt.labels,
            box_xyxy=prompt.box_xyxy,
            mask_rle=prompt.mask_rle,
        )
        known = {ticket.place[i]: mask.rle for i, mask in draft.known().items()} if memory else {}
        known.pop(place, None)  # its mask is to be corrected
        yield from self._settle(ticket, known, place)
        around = self._around(ticket, draft, place, forward=True) if memory else {}
        mask = draft.masks.get(prompt.frame_idx)
        if mask is not None and mask.area_px:  # what is corrected
            around[place] = mask.rle
        yield from self._recall(ticket, around, place if memory or place in around else None)
        yield from ticket.features.encoding(place)
        answer = ticket.tracker.prompt(IT, asked, remember=False)  # by its mask, as another worker will know it
        yield _frame_mask(prompt.frame_idx, answer, (draft.height, draft.width))

    def track(
        self, ticket_id: str, video_id: str, draft: Draft, source: int, frame_idx: Sequence[int]
    ) -> Generator[FrameMask | None]:
        """The masks of these frames, in this order, which leads away from `source`, a frame that has a mask.

        None wherever more urgent work may come between.
        """
        if not frame_idx:
            return
        ticket = self._ticket(ticket_id, video_id, draft)
        first, last = ticket.place[frame_idx[0]], ticket.place[frame_idx[-1]]
        sign = -1 if frame_idx[0] < source else 1
        known = {ticket.place[i]: mask.rle for i, mask in draft.known(source).items()}
        yield from self._settle(ticket, known, ticket.place[source])
        yield from self._recall(ticket, self._around(ticket, draft, first, forward=sign > 0), None)
        tracked = ticket.tracker.propagate(first, last + sign, reverse=sign < 0)
        for place in range(first, last + sign, sign):
            yield from ticket.features.encoding(place)
            made = _frame_mask(draft.frame_idx[place], next(tracked), (draft.height, draft.width))
            ticket.tracked[place] = made.rle
            yield made

    def _settle(self, ticket: _Ticket, known: Mapping[int, bytes], at: int) -> Generator[None]:
        """Makes the tracker's conditioning frames those of `known`, masks by place, that are nearest to a place."""
        wanted = sorted(known, key=lambda place: abs(place - at))[:NEAREST]
        for place, counts in list(ticket.held.items()):
            if place not in wanted or known[place] != counts:
                ticket.tracker.remove(IT, place)
                del ticket.held[place]
        for place in wanted:
            if place not in ticket.held:
                yield from ticket.features.encoding(place)
                ticket.tracker.prompt(IT, Prompt(frame_idx=place, mask_rle=known[place]))
                ticket.held[place] = known[place]
                yield

    def _around(self, ticket: _Ticket, draft: Draft, place: int, *, forward: bool) -> dict[int, bytes]:
        """The masks before a place, as its memory: those after it where tracking goes backward."""
        sign, reach = (-1 if forward else 1), ticket.features.loaded.model.num_maskmem
        places = [place + sign * back for back in range(1, reach)]
        frames = {n: draft.frame_idx[n] for n in places if 0 <= n < len(draft.frame_idx)}
        return {n: draft.masks[i].rle for n, i in frames.items() if i in draft.masks}

    def _recall(self, ticket: _Ticket, known: Mapping[int, bytes], about: int | None) -> Generator[None]:
        same = {i: counts for i, counts in ticket.tracked.items() if known.get(i) == counts and i != about}
        ticket.tracked = same
        return ticket.tracker.recalling(IT, known, about=about, keep=same)

    def _ticket(self, ticket_id: str, video_id: str, draft: Draft) -> _Ticket:
        if ticket_id not in self._tickets:
            self._tickets[ticket_id] = _Ticket(self.features, video_id, draft)
        self._tickets.move_to_end(ticket_id)
        while len(self._tickets) > OPEN_TICKETS:
            self._tickets.popitem(last=False)
        return self._tickets[ticket_id]


class LiveModel:
    """`annotation_queue.refine.Segmenter` over the promoted checkpoint; a new one is taken up by `load`."""

    def __init__(self, s: Services) -> None:
        self._s = s
        self._videos = _Videos(s)
        self._now: _Pinned | None = None

    def load(self) -> None:
        """Load the weights ahead: those that are promoted now."""
        from model.features import FeatureCache

        promoted = self._s.checkpoint()
        if self._now is None or promoted != self._now.served:
            loaded = self._s.model(promoted)
            size = int(self._s.settings.model.embeddings_gib * 2**30) // _feature_bytes(loaded)
            # what was computed with the old weights goes with the last propagation that began with them
            self._now = _Pinned(promoted, FeatureCache(loaded, self._videos.read, size=max(2 * NEAREST, size)))
            gc.collect()
            gc.freeze()  # torch came with the first model, and stays: see the queue's application

    def now(self) -> _Pinned:
        """The checkpoint that answers what is asked now."""
        if self._now is None:
            self.load()
        assert self._now is not None
        return self._now

    def warm(self, video_id: str, frame_idx: Sequence[int]) -> Generator[None]:
        """Computes embeddings of frames ahead, the first ones first, in steps. Raises NoSuchVideo.

        No more than half of what is kept: the other half is the ticket's before or after.
        """
        now = self.now()
        for frame in frame_idx[: now.features.size // 2]:
            if now is not self._now:
                return
            yield from now.features.encoding((video_id, frame))

    def close(self) -> None:
        """Closes every open video."""
        self._videos.close()


def _feature_bytes(loaded: LoadedModel) -> int:
    """What the embedding of one frame takes, in bytes: maps of 32, 64 and 256 channels."""
    side = loaded.image_size // 4
    return loaded.dtype.itemsize * (side**2 * 32 + (side // 2) ** 2 * 64 + (side // 4) ** 2 * 256)


def _frame_mask(frame_idx: int, answer: FrameMasks, hw: tuple[int, int]) -> FrameMask:
    mask = answer.masks(hw)[0]
    return FrameMask(
        frame_idx=frame_idx,
        rle=rle.encode(mask),
        area_px=int(mask.sum()),
        score=round(float(answer.iou[0]), 4),
        object_score=round(float(answer.object_score[0]), 4),
        stability=round(float(answer.stability()[0]), 4),
    )
