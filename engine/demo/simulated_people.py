"""Simulated people: they claim tickets over the queue's HTTP interface and finish them with the help of ground truth.

A reviewer compares the masklet with the true objects. An annotator corrects it (see `simulated_tracking`). The time is
modelled, never measured (see `engine.protocols.effort`).
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from annotation_queue import labels
from annotation_queue.client import QueueClient
from annotation_queue.errors import QueueError
from annotation_queue.labels import Label
from annotation_queue.records import Kind, Reason, Ticket
from annotation_queue.tickets.store import HEARTBEAT_S
from engine.demo.annotator_policy import AnnotatorPolicy, aligned, iou_at
from engine.demo.simulated_tracking import Correction, Tracked, blank, by_hand
from engine.demo.tally import Tally
from engine.ingest import admitted
from engine.protocols.annotator import GOOD
from engine.registry import Checkpoint
from engine.services import Services
from engine.serving.media import StoredMedia
from engine.stages import phases
from engine.stages.work import Work
from storage.dataset import parts
from storage.records import Masklet, Verdict, Video

if TYPE_CHECKING:
    from model.features import FeatureCache


class NoTruth(Exception):
    """Simulated people need ground truth, and this video has no ground truth."""


@dataclass(frozen=True)
class Credentials:
    """The account of a simulated person."""

    name: str
    password: str


def work(
    s: Services,
    people: Sequence[Credentials],
    *,
    batch_id: str | None = None,
    policy: AnnotatorPolicy | None = None,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Lets each person in turn claim and finish tickets until no ticket is left.

    Raises NoTruth after it has released the ticket.
    """
    policy, total = policy or AnnotatorPolicy(), Tally()
    clients = [_Connections(s.settings.queue_url, person) for person in people]
    desk = Desk(s, policy)
    try:
        idle = 0
        while idle < len(clients):
            idle = 0
            for client in clients:
                ticket = client.work.claim(batch_id=batch_id)
                if ticket is None:
                    idle += 1
                    continue
                with _Heartbeat(client.heart, ticket):
                    total.add(desk.do(client.work, ticket))
                progress(total)
        return total
    finally:
        desk.close()
        for client in clients:
            client.close()


class _Connections:
    """A person's two connections, for the work and for the heartbeat thread: a client serves only one thread."""

    def __init__(self, url: str, person: Credentials) -> None:
        self.work = QueueClient(url, username=person.name, password=person.password)
        self.heart = QueueClient(url, username=person.name, password=person.password)

    def close(self) -> None:
        self.work.close()
        self.heart.close()


class Desk:
    """What people share: ground truth, videos, the model, and which objects already have a candidate."""

    def __init__(self, s: Services, policy: AnnotatorPolicy) -> None:
        self._s, self._policy = s, policy
        self._truths: dict[str, list[Masklet]] = {}
        self._first: dict[tuple[str, str], str] = {}  # (video, object) -> its first candidate
        self._videos: dict[str, Video] = {}
        self._loaded: tuple[Checkpoint, FeatureCache] | None = None
        self._media = StoredMedia(s)

    def close(self) -> None:
        """Closes the videos that are open."""
        self._media.close()

    def do(self, client: QueueClient, ticket: Ticket) -> Tally:
        """Finishes one ticket; releases it if the video has no ground truth."""
        try:
            if ticket.kind is Kind.VERIFY:
                return self._verify(client, ticket)
            if ticket.kind is Kind.SELECT:
                return self._select(client, ticket)
            return self._track(client, ticket)
        except NoTruth:
            client.release(ticket)
            raise

    def _verify(self, client: QueueClient, ticket: Ticket) -> Tally:
        masklet = client.masklet(ticket)
        assert masklet is not None  # every verify ticket has a masklet
        verdict, reasons = self._verdict(ticket, masklet)
        if labels.asks(ticket, verdict):
            self._label(client, ticket, self._match(masklet)[0], masklet)
        return self._answer(client, ticket, verdict, reasons)

    def _answer(self, client: QueueClient, ticket: Ticket, verdict: Verdict, reasons: Sequence[Reason]) -> Tally:
        """Gives a verdict: the person has watched the video once."""
        done = Work(watched_frames=self._video(ticket.video_id).frame_count)
        client.finish(ticket, verdict=verdict, reasons=reasons, frame_idx=0, seconds=done.modelled_s)
        return Tally(verdicts=Counter([verdict.value]), work=done)

    def _verdict(self, ticket: Ticket, masklet: Masklet) -> tuple[Verdict, tuple[Reason, ...]]:
        """What the ticket's holder says about a masklet, and why."""
        policy = self._policy
        target, best = self._match(masklet)
        if target is None:
            right, reason, margin = Verdict.REJECT, Reason.NOT_AN_OBJECT, best - policy.same_object
        elif self._is_duplicate(ticket, masklet, target):
            right, reason, margin = Verdict.REJECT, Reason.DUPLICATE, inf
        else:
            margin = policy.margin(masklet, target)
            right = Verdict.ACCEPT if margin >= 0 else Verdict.REFINE
            reason = Reason.DRIFT if best > GOOD else Reason.WRONG_BOUNDARY
        verdict = policy.noise.verdict(right, margin, ticket.ticket_id, ticket.leased_by or "")
        if verdict is Verdict.ACCEPT:
            return verdict, ()
        if verdict is Verdict.REFINE and ticket.attempt // 2 >= policy.attempts:
            return Verdict.REJECT, (Reason.UNTRACKABLE,)  # every second ticket of a chain is a track ticket
        return verdict, (reason if verdict is right else Reason.WRONG_BOUNDARY,)

    def _select(self, client: QueueClient, ticket: Ticket) -> Tally:
        """Adds every object that no candidate shows, each under a ticket of its own."""
        total = Tally()
        for target in self._missed(ticket):
            new = client.new_object(ticket)
            total.add(self._make(client, new, blank(self._video(ticket.video_id), new), target))
            total.added += 1
        total.add(self._answer(client, ticket, Verdict.REJECT, (Reason.OTHER,)))  # nothing else is left
        return total

    def _missed(self, ticket: Ticket) -> list[Masklet]:
        """The true objects of the ticket's video that no candidate of its batch shows."""
        batch_id = self._s.queue.ticket(ticket.ticket_id).batch_id  # which people are not shown
        marker = parts.marker(self._s.blobs, "candidates", batch_id, ticket.video_id)
        candidates = [] if marker is None else parts.read_part(self._s.blobs, marker)
        shown = {target.masklet_id for target, _ in map(self._match, candidates) if target is not None}
        return [
            truth
            for truth in self.truth(ticket.video_id)
            if truth.masklet_id not in shown and max(truth.area_px) >= self._policy.smallest_px
        ]

    def _track(self, client: QueueClient, ticket: Ticket) -> Tally:
        candidate = client.masklet(ticket)
        if candidate is None:  # an object that a killed run began to add
            client.finish(ticket, verdict=Verdict.REJECT, reasons=(Reason.OTHER,))
            return Tally(verdicts=Counter([Verdict.REJECT.value]))
        target, _ = self._match(candidate)
        if target is None or self._is_duplicate(ticket, candidate, target):
            reason = Reason.NOT_AN_OBJECT if target is None else Reason.DUPLICATE
            return self._answer(client, ticket, Verdict.REJECT, (reason,))
        return self._make(client, ticket, candidate, target)

    def _make(self, client: QueueClient, ticket: Ticket, candidate: Masklet, target: Masklet) -> Tally:
        """Makes the masklet of a true object from a candidate, which may be blank, and submits it."""
        if phases.phase(ticket.phase).propagates:
            tracked = self._with_model(candidate, target, ticket)
        else:
            tracked = by_hand(candidate, target, ticket)
        client.append_operations(ticket, tracked.operations)
        if labels.asks(ticket, None):
            self._label(client, ticket, target, candidate)
        client.finish(ticket, masklet=tracked.masklet, frame_idx=0, seconds=tracked.tally.work.modelled_s)
        return tracked.tally

    def _label(self, client: QueueClient, ticket: Ticket, *known: Masklet | None) -> None:
        """Gives the label of the first of these masklets whose label the ontology has; else its first class.

        A class that a frame has once would be refused for the second object.
        """
        ontology = client.ontology(json.loads(ticket.payload)["ontology"])
        said = [Label(name=m.label, attributes=m.attributes) for m in known if m is not None and m.label]
        usable = [each for each in said if not ontology.problem(each.name, each.values)]
        often = [each for each in ontology.classes if each.instances != "one"]
        label = usable[0] if usable else Label(name=(often or ontology.classes)[0].name)
        needed = {each.name: each.example for each in ontology.attributes_of(label.name or "") if each.required}
        client.label(ticket, label.name, needed | label.values)

    def _with_model(self, candidate: Masklet, target: Masklet, ticket: Ticket) -> Tracked:
        from model.tracker import Tracker, TrackerConfig

        video = self._video(candidate.video_id)
        checkpoint, features = self._model()
        clicking = "click" in phases.phase(ticket.phase).propagates
        tracker = Tracker(
            features.loaded,
            features.at([(video.video_id, frame) for frame in candidate.frame_idx]),
            video_hw=(video.height, video.width),
            frame_count=len(candidate.frame_idx),
            config=TrackerConfig(history_frames=None),
        )
        correction = Correction(tracker, video, candidate, target, self._policy, clicking=clicking)
        correction.correct()
        return correction.result(ticket, checkpoint)

    def _match(self, masklet: Masklet) -> tuple[Masklet | None, float]:
        """The true object of a masklet by its first visible frame, or None, and the IoU there."""
        best, found = 0.0, None
        for truth in self.truth(masklet.video_id):
            first = next((i for i, area in enumerate(masklet.area_px) if area), None)
            if first is None:
                continue
            iou = iou_at(masklet, aligned(truth, masklet.frame_idx), first)
            if iou > best:
                best, found = iou, truth
        return (found, best) if best >= self._policy.same_object else (None, best)

    def _is_duplicate(self, ticket: Ticket, candidate: Masklet, target: Masklet) -> bool:
        """Whether an earlier candidate showed the same object. Follow-up tickets of one candidate are no duplicates."""
        if ticket.attempt > 1 or not self._policy.one_each:
            return False
        first = self._first.setdefault((ticket.video_id, target.masklet_id), candidate.masklet_id)
        return first != candidate.masklet_id  # several people may work on the first one

    def truth(self, video_id: str) -> list[Masklet]:
        """The true masklets of a video. Raises NoTruth."""
        if video_id not in self._truths:
            video = self._video(video_id)
            if video.truth_key is None:
                raise NoTruth(f"video {video_id} ({video.source_uri}) has no ground truth beside it")
            self._truths[video_id] = admitted.truths(self._s.blobs, video)
        return self._truths[video_id]

    def _video(self, video_id: str) -> Video:
        if video_id not in self._videos:
            self._videos[video_id] = self._s.video(video_id)
        return self._videos[video_id]

    def _model(self) -> tuple[Checkpoint, FeatureCache]:
        """The promoted checkpoint, and its features of the frames that were corrected last, by video and frame."""
        from model import features

        if self._loaded is None:
            checkpoint = self._s.checkpoint()
            loaded = self._s.model(checkpoint)
            size = int(self._s.settings.model.embeddings_gib * 2**30) // features.frame_bytes(loaded)
            cache = features.FeatureCache(loaded, lambda place: self._media.pixels(*place), size=max(8, size))
            self._loaded = checkpoint, cache
        return self._loaded


class _Heartbeat:
    """Renews a lease from another thread. If the lease is lost anyway, the next write of the work fails."""

    def __init__(self, client: QueueClient, ticket: Ticket) -> None:
        self._client, self._ticket, self._done = client, ticket, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(QueueError):
            while not self._done.wait(HEARTBEAT_S):
                self._client.heartbeat(self._ticket)
