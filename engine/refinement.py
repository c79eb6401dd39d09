"""The model of live refinement: clicks and propagations of many people's tickets over a few open videos.

Refinement works on the annotated frames alone, 6 a second: what is tracked is what is kept. A ticket's tracker is only
a cache: whatever the draft says is put into its memory before it is asked, so it can be dropped at any time.
Called from one thread (`annotation_queue.refine.Turns`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from annotation_queue.records import NoSuchVideo
from annotation_queue.refine import Draft, FrameMask
from engine.services import Services
from storage import rle
from storage.records import Prompt
from storage.video import FrameReader

if TYPE_CHECKING:
    from engine.registry import Checkpoint
    from model.load import LoadedModel
    from model.tracker import FeatureCache, FrameMasks, Tracker

OPEN_VIDEOS = 8  # and those that are being propagated in
OPEN_TICKETS = 32
FEATURE_BYTES = 192 << 20  # of embeddings kept, a video
NEAREST = 8  # settled masks around a frame that are put into the tracker's memory; it reads fewer
IT = "it"  # a ticket is about one object


class _Video:
    """A video that is open: its reader and its embeddings, by frame of the video."""

    def __init__(self, s: Services, loaded: LoadedModel, video_id: str) -> None:
        from model.tracker import FeatureCache

        try:
            video = s.video(video_id)
        except ValueError as error:
            raise NoSuchVideo(str(error)) from None
        self.reader = FrameReader(s.blobs.fetch(video.video_key))
        kept = max(8, FEATURE_BYTES // _feature_bytes(loaded))
        self.features: FeatureCache = FeatureCache(loaded, self.reader.read, size=kept)
        self.users = 0  # propagations that have begun and not ended

    def close(self) -> None:
        self.reader.close()


class _Ticket:
    """The tracker of a ticket's object. It knows the annotated frames by their place."""

    def __init__(self, loaded: LoadedModel, video: _Video, draft: Draft) -> None:
        from model.tracker import Tracker, TrackerConfig

        self.video = video
        self.tracker: Tracker = Tracker(
            loaded,
            video.features.at(draft.frame_idx),
            video_hw=(draft.height, draft.width),
            frame_count=len(draft.frame_idx),
            config=TrackerConfig(history_frames=None),
        )
        self.place = {frame: n for n, frame in enumerate(draft.frame_idx)}
        self.held: dict[int, bytes] = {}  # conditioning frames by place, with the mask that they stand for
        self.tracked: dict[int, bytes] = {}  # frames by place that this tracker tracked, with what came out


class LiveModel:
    """`annotation_queue.refine.Segmenter` over the promoted checkpoint; a new one is taken up by `load`."""

    def __init__(self, s: Services) -> None:
        self._s = s
        self._serving: Checkpoint | None = None
        self._videos: OrderedDict[str, _Video] = OrderedDict()
        self._tickets: OrderedDict[str, _Ticket] = OrderedDict()

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint that answers."""
        return self._chosen().name

    @property
    def round(self) -> int:
        """The round that made it."""
        return self._chosen().round

    def load(self) -> None:
        """Load the weights ahead: those that are promoted now."""
        promoted = self._s.checkpoint()
        if self._serving is not None and promoted != self._serving:
            self.close()  # what was computed with the old weights is worth nothing to the new ones
        self._serving = promoted
        self._loaded  # noqa: B018

    def warm(self, video_id: str, frame_idx: int) -> Generator[None]:
        """Compute the embedding of a frame ahead, in steps. Raises NoSuchVideo."""
        yield from self._video(video_id).features.encoding(frame_idx)

    def click(self, ticket_id: str, video_id: str, draft: Draft, prompt: Prompt, *, memory: bool) -> FrameMask:
        """Answer a prompt on its frame; with `memory`, in the light of the masks around it."""
        ticket = self._ticket(ticket_id, video_id, draft)
        place = ticket.place[prompt.frame_idx]
        asked = Prompt(
            frame_idx=place,
            points_xy=prompt.points_xy,
            labels=prompt.labels,
            box_xyxy=prompt.box_xyxy,
            mask_rle=prompt.mask_rle,
        )
        before = draft.prompts.get(prompt.frame_idx)
        going_on = before is not None and before.points_xy == prompt.points_xy[: len(before.points_xy)]
        self._settle(ticket, draft, prompt.frame_idx, memory=memory, free=None if going_on else place)
        around = self._around(draft, ticket, place, forward=True) if memory else {}
        mask = draft.masks.get(prompt.frame_idx)
        if mask is not None and mask.area_px:  # what is corrected
            around[place] = mask.rle
        about = place if memory or place in around else None
        self._recall(ticket, around, about)
        answer = ticket.tracker.prompt(IT, asked)
        made = _frame_mask(prompt.frame_idx, answer, (draft.height, draft.width))
        ticket.held[place] = made.rle
        return made

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
        around = self._around(draft, ticket, first, forward=sign > 0)
        ticket.video.users += 1
        try:
            for place in around:
                yield from ticket.video.features.encoding(draft.frame_idx[place])
            self._settle(ticket, draft, source, memory=True, free=None)
            self._recall(ticket, around, None)
            tracked = ticket.tracker.propagate(first, last + sign, reverse=sign < 0)
            for place in range(first, last + sign, sign):
                yield from ticket.video.features.encoding(draft.frame_idx[place])
                answer = next(tracked)
                made = _frame_mask(draft.frame_idx[place], answer, (draft.height, draft.width))
                ticket.tracked[place] = made.rle
                yield made
        finally:
            ticket.video.users -= 1

    def close(self) -> None:
        """Closes every open video."""
        for video in self._videos.values():
            video.close()
        self._videos.clear()
        self._tickets.clear()

    def _settle(self, ticket: _Ticket, draft: Draft, source: int, *, memory: bool, free: int | None) -> None:
        """Makes the tracker's conditioning frames those of the draft, the nearest ones to `source`.

        free: a place that shall be none, because its mask is to be corrected. Without `memory` only the place of
        `source` may be one.
        """
        known = {ticket.place[i]: mask.rle for i, mask in draft.known(source).items()}
        at = ticket.place[source]
        if not memory:
            known = {place: counts for place, counts in known.items() if place == at}
        wanted = sorted(known, key=lambda place: abs(place - at))[:NEAREST]
        for place, counts in list(ticket.held.items()):
            if known.get(place) != counts or place == free:
                ticket.tracker.remove(IT, place)
                del ticket.held[place]
        for place in wanted:
            if place not in ticket.held and place != free:
                ticket.tracker.prompt(IT, Prompt(frame_idx=place, mask_rle=known[place]))
                ticket.held[place] = known[place]

    def _around(self, draft: Draft, ticket: _Ticket, place: int, *, forward: bool) -> dict[int, bytes]:
        """The masks before a place, as its memory: those after it where tracking goes backward."""
        sign, reach = (-1 if forward else 1), self._loaded.model.num_maskmem
        places = [place + sign * back for back in range(1, reach)]
        frames = {n: draft.frame_idx[n] for n in places if 0 <= n < len(draft.frame_idx)}
        return {n: draft.masks[i].rle for n, i in frames.items() if i in draft.masks}

    def _recall(self, ticket: _Ticket, known: dict[int, bytes], about: int | None) -> None:
        same = {place for place, counts in ticket.tracked.items() if known.get(place) == counts}
        ticket.tracked = {place: ticket.tracked[place] for place in same}
        ticket.tracker.recall(IT, known, about=about, keep=same)

    @property
    def _loaded(self) -> LoadedModel:
        return self._s.model(self._chosen())

    def _chosen(self) -> Checkpoint:
        if self._serving is None:
            self._serving = self._s.checkpoint()
        return self._serving

    def _video(self, video_id: str) -> _Video:
        if video_id not in self._videos:
            self._videos[video_id] = _Video(self._s, self._loaded, video_id)
        self._videos.move_to_end(video_id)
        idle = [key for key, video in self._videos.items() if key != video_id and not video.users]
        for key in idle[: max(0, len(self._videos) - OPEN_VIDEOS)]:
            self._videos.pop(key).close()
        return self._videos[video_id]

    def _ticket(self, ticket_id: str, video_id: str, draft: Draft) -> _Ticket:
        video = self._video(video_id)
        if ticket_id not in self._tickets or self._tickets[ticket_id].video is not video:
            self._tickets[ticket_id] = _Ticket(self._loaded, video, draft)
        self._tickets.move_to_end(ticket_id)
        while len(self._tickets) > OPEN_TICKETS:
            self._tickets.popitem(last=False)
        return self._tickets[ticket_id]


def _feature_bytes(loaded: LoadedModel) -> int:
    """The most that the embedding of one frame takes, in bytes: float32 maps of 32, 64 and twice 256 channels."""
    side = loaded.image_size // 4
    return 4 * (side**2 * 32 + (side // 2) ** 2 * 64 + 2 * (side // 4) ** 2 * 256)


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
