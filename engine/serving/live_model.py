"""The model of live refinement: answers the clicks and propagations of many tickets with the promoted checkpoint.

It works on the annotated frames only, 6 a second.

The tracker of a ticket is only a cache. Before each question, the masks of the draft are put into its memory, so it can
be dropped at any time:
- The tracker uses the masks of settled frames as its input for all other frames, in every phase.
- A frame that this tracker tracked keeps the memory of that, as long as the draft has the same mask. A new tracker
  gets the mask instead, which gives nearly the same memory.

Called from one thread (`annotation_queue/refinement/turns.py`). Knows nothing about people, leases or HTTP.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

from cachetools import LRUCache

from annotation_queue.draft import Draft, FrameMask
from engine.services import Services
from engine.serving import garbage
from engine.serving.media import StoredMedia
from storage import rle
from storage.pixels import Rgb
from storage.records import Prompt

if TYPE_CHECKING:
    from engine.registry import Checkpoint
    from model.features import FeatureCache
    from model.frame_masks import FrameMasks
    from model.tracker import Tracker

OPEN_TICKETS = 32
# Tracked frames whose memory is kept, so that a click among them is answered at once; a frame takes about 0.75 MiB at
# 1024 px. The memory of a frame that is forgotten is made again from its mask, which takes as long as tracking it.
KEPT_FRAMES = 256  # of a ticket, on both sides of the last one
KEPT_IN_ALL = 1024  # of all tickets
NEAREST = 8  # settled masks around a frame that go into the tracker's memory; it reads fewer
OBJECT_ID = "object"  # a ticket is about one object


class _Ticket:
    """The tracker of a ticket's object. It counts the annotated frames from 0: a place is an index into them."""

    def __init__(self, features: FeatureCache, video_id: str, draft: Draft) -> None:
        from model.tracker import Tracker, TrackerConfig

        self.features = features.at([(video_id, frame) for frame in draft.frame_idx])
        self.tracker: Tracker = Tracker(
            features.loaded,
            self.features,
            video_hw=(draft.height, draft.width),
            frame_count=len(draft.frame_idx),
            config=TrackerConfig(history_frames=KEPT_FRAMES),
        )
        self.place = {frame: n for n, frame in enumerate(draft.frame_idx)}
        self.held: dict[int, bytes] = {}  # conditioning frames by place: the mask that each was prompted with
        self.tracked: dict[int, bytes] = {}  # frames that this tracker tracked, by place: the mask that came out


class _Pinned:
    """The `PinnedCheckpoint` of live refinement: one checkpoint with its embeddings and the trackers of tickets."""

    def __init__(self, served: Checkpoint, features: FeatureCache) -> None:
        self.served, self.features = served, features
        self._tickets: LRUCache[str, _Ticket] = LRUCache(OPEN_TICKETS)

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint."""
        return self.served.name

    @property
    def round(self) -> int:
        """The retraining round that made the checkpoint; 0 before the first."""
        return self.served.round

    def click(
        self, ticket_id: str, video_id: str, draft: Draft, prompt: Prompt, *, memory: bool
    ) -> Generator[FrameMask | None]:
        """Answers a prompt on its frame; with `memory`, the masks around the frame are used too."""
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
        known.pop(place, None)  # the frame to be corrected is no condition
        yield from self._settle(ticket, known, place)
        around = self._around(ticket, draft, place, forward=True) if memory else {}
        mask = draft.masks.get(prompt.frame_idx)
        if mask is not None and mask.area_px:  # the mask to be corrected
            around[place] = mask.rle
        yield from self._recall(ticket, around, place if memory or place in around else None)
        yield from ticket.features.encoding(place)
        answer = ticket.tracker.prompt(
            OBJECT_ID, asked, remember=False
        )  # not remembered here: the next request puts the settled mask into memory
        yield _frame_mask(prompt.frame_idx, answer, (draft.height, draft.width))

    def track(
        self, ticket_id: str, video_id: str, draft: Draft, source: int, frame_idx: Sequence[int]
    ) -> Generator[FrameMask | None]:
        """The masks of these frames, in this order. It yields None where more urgent work may come between.

        source: a frame that has a mask; `frame_idx` leads away from it.
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
        self._forget_others(ticket)

    def _settle(self, ticket: _Ticket, known: Mapping[int, bytes], at: int) -> Generator[None]:
        """Conditions the tracker on the masks of `known` that are nearest to the place `at`, and on no others.

        known: the settled masks by place.
        """
        wanted = sorted(known, key=lambda place: abs(place - at))[:NEAREST]
        for place, counts in list(ticket.held.items()):
            if place not in wanted or known[place] != counts:
                ticket.tracker.remove(OBJECT_ID, place)
                del ticket.held[place]
        for place in wanted:
            if place not in ticket.held:
                yield from ticket.features.encoding(place)
                ticket.tracker.prompt(OBJECT_ID, Prompt(frame_idx=place, mask_rle=known[place]))
                ticket.held[place] = known[place]
                yield

    def _around(self, ticket: _Ticket, draft: Draft, place: int, *, forward: bool) -> dict[int, bytes]:
        """The masks on the frames before a place, or after it if tracking goes backward: the memory for this place."""
        sign = -1 if forward else 1
        places = [place + sign * back for back in range(1, ticket.tracker.reach + 1)]
        frames = {n: draft.frame_idx[n] for n in places if 0 <= n < len(draft.frame_idx)}
        return {n: draft.masks[i].rle for n, i in frames.items() if i in draft.masks}

    def _recall(self, ticket: _Ticket, known: Mapping[int, bytes], about: int | None) -> Generator[None]:
        """Puts masks by place into the memory. Frames whose tracked mask still stands keep the memory they have."""
        same = {i: counts for i, counts in ticket.tracked.items() if known.get(i) == counts and i != about}
        ticket.tracked = same
        return ticket.tracker.recalling(OBJECT_ID, known, about=about, keep=same)

    def _forget_others(self, ticket: _Ticket) -> None:
        """Forgets the tickets that were used longest ago, until few enough tracked frames are remembered."""
        while sum(min(KEPT_FRAMES, len(each.tracked)) for each in self._tickets.values()) > KEPT_IN_ALL:
            _, oldest = self._tickets.popitem()
            if oldest is ticket:
                return

    def _ticket(self, ticket_id: str, video_id: str, draft: Draft) -> _Ticket:
        ticket = self._tickets.get(ticket_id)
        if ticket is None:
            ticket = self._tickets[ticket_id] = _Ticket(self.features, video_id, draft)
        return ticket


class LiveModel:
    """The `Segmenter` of live refinement over the promoted checkpoint."""

    def __init__(self, s: Services, media: StoredMedia) -> None:
        self._s, self._media = s, media
        self._now: _Pinned | None = None

    def load(self) -> None:
        """Loads the checkpoint that is promoted now, unless it is loaded already."""
        from model import features

        promoted = self._s.checkpoint()
        if self._now is None or promoted != self._now.served:
            loaded = self._s.model(promoted)
            size = int(self._s.settings.model.embeddings_gib * 2**30) // features.frame_bytes(loaded)
            # the old weights and their embeddings are freed with the last propagation that began with them
            self._now = _Pinned(promoted, features.FeatureCache(loaded, self._pixels, size=max(2 * NEAREST, size)))
            garbage.settle()

    def now(self) -> _Pinned:
        """The checkpoint that answers now; loads it for the first question."""
        if self._now is None:
            self.load()
        assert self._now is not None
        return self._now

    @property
    def loaded(self) -> str | None:
        """The name of the checkpoint that answers now; None before the first question."""
        return None if (now := self._now) is None else now.checkpoint

    def _pixels(self, place: tuple[str, int]) -> Rgb:
        """A frame by its video and its index. Raises NoSuchVideo."""
        return self._media.pixels(*place)

    def warm(self, video_id: str, frame_idx: Sequence[int]) -> Generator[None]:
        """Computes the embeddings of frames ahead, in steps and in the given order. Raises NoSuchVideo.

        Fills at most half of the cache: the other half holds the ticket before or after this one.
        """
        now = self.now()
        for frame in frame_idx[: now.features.size // 2]:
            if now is not self._now:
                return
            yield from now.features.encoding((video_id, frame))


def _frame_mask(frame_idx: int, answer: FrameMasks, hw: tuple[int, int]) -> FrameMask:
    mask, estimates = answer.masks(hw)[0], answer.estimates()
    return FrameMask(
        frame_idx=frame_idx,
        rle=rle.encode(mask),
        area_px=int(mask.sum()),
        score=round(estimates.iou[0], 4),
        object_score=round(estimates.object_score[0], 4),
        stability=round(estimates.stability[0], 4),
    )
