"""What a dataset of a given size needs: GPU-hours, storage, requests, tickets, people, weeks, money.

Pure arithmetic over `Assumptions`. Each one has a value, a unit and where it comes from: measured by a benchmark of
this project (`benchmarks/results/`, compared by a test), published, or assumed. People can change any of them. No
assumption is hidden in the code below.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HOUR_S = 3600.0
SAM2 = "SAM 2 paper, arXiv 2408.00714"
README = "README of facebookresearch/sam2"
AWS = "AWS list price, us-east-1"
SHARES = ("accept_share", "reviewed_share")  # in (0, 1]


def _said(value: float, unit: str, source: str) -> Any:
    return field(default=value, metadata={"unit": unit, "from": source})


def _measured(value: float, unit: str, file: str, what: str) -> Any:
    return _said(value, unit, f"measured, benchmarks/results/{file}: {what}")


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Everything that the plan follows from."""

    videos: float = _said(50_900, "videos", f"{SAM2}: SA-V")
    clip_s: float = _said(13.863, "s, mean length", f"{SAM2}: SA-V, 196 hours in 50,900 videos")
    manual_a_video: float = _said(3.7505, "masklets corrected by people", f"{SAM2}: SA-V, 190,900 manual masklets")
    auto_a_video: float = _said(8.8743, "masklets accepted as proposed", f"{SAM2}: SA-V, 451,700 auto masklets")

    # people
    people: float = _said(50, "people", "assumed: a vendor's team")
    hours_a_week: float = _said(30, "hours a person", "assumed: 40 without breaks, training and meetings")
    accept_share: float = _said(0.4, "of the candidates", "assumed: not published; the lead's page has yours")
    again_share: float = _said(0.25, "of the corrections", "assumed: sent back once more; not published")
    reviewed_share: float = _said(1.0, "of the candidates", "assumed: people judge all; less with the verifier")
    select_s: float = _said(60, "s for an object", "assumed: to find a challenging object and click it")
    frame_s: float = _said(4.5, "s for an annotated frame", f"{SAM2}, table 1: phase 3")
    watch_speed: float = _said(1.0, "of real time", "assumed: a masklet is watched once, at normal speed")
    verdict_s: float = _measured(1.63, "s for a verdict", "keystrokes.json", "keys, by a model of hand times")

    # the model
    gpu_fps: float = _said(39.5, "frames/s, one object", f"{README}: SAM 2.1 large on an A100, compiled")
    object_share: float = _measured(
        0.495, "of the encoder's time, for an object", "tracker-cpu.json", "16 objects on a CPU; a GPU may differ"
    )
    grid_s: float = _said(8, "GPU s for a video", "assumed: 2,304 points in 21 crops; not measured on a GPU")
    propagations: float = _said(4, "propagations of a correction", "assumed: phase 3 propagates after each click")
    people_a_gpu: float = _said(8, "people correcting at a GPU", "assumed: most of their time they look")
    rounds: float = _said(5, "retraining rounds", f"{SAM2}, section 5.1: phase 3")
    round_gpu_h: float = _said(200, "GPU-hours a round", "assumed: 8 GPUs for a day")
    ingest_core_h: float = _measured(
        0.4,
        "core-hours for an hour of video",
        "ingest.json",
        "decode, encode and search for copies, clips enlarged to SA-V's mean size; twice that with blurred faces",
    )

    # the store
    video_gb_h: float = _said(3.6, "GB for an hour of video", "assumed: 8 Mbit/s at SA-V's mean of 1401 x 1037 px")
    mask_bytes: float = _said(357, "bytes for a mask", "measured on SA-V's own files: compressed run lengths")
    annotated_fps: float = _said(6, "masks a second", f"{SAM2}, section 5.1")
    manifest_bytes: float = _measured(902, "bytes for a video", "scale.json", "what a publish writes")
    puts_a_video: float = _said(25, "writes for a video", "counted in the design: video, parts, markers, marks")
    gets_a_video: float = _said(60, "reads for a video", "counted in the design: each stage reads what it needs once")

    # money
    person_usd_h: float = _said(12, "USD for an hour", "assumed: a vendor's price; from 6 to 40 by country")
    gpu_usd_h: float = _said(2.5, "USD for an hour", "assumed: an A100 with 80 GB, on demand")
    core_usd_h: float = _said(0.05, "USD for an hour", "assumed: a virtual core, on demand")
    gb_usd_month: float = _said(0.023, "USD for a GB and month", AWS)
    put_usd: float = _said(0.005, "USD for 1,000 writes", AWS)
    get_usd: float = _said(0.0004, "USD for 1,000 reads", AWS)


@dataclass(frozen=True)
class Need:
    """One thing that is needed."""

    name: str
    value: float
    unit: str
    how: str  # how it follows from the assumptions


@dataclass(frozen=True)
class Stated:
    """An assumption as it is printed."""

    name: str
    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Plan:
    """What is needed, and everything that it follows from."""

    needs: tuple[Need, ...]
    assumptions: tuple[Stated, ...]

    def as_json(self) -> dict[str, Any]:
        """Both as a JSON object."""
        return {
            "needs": {need.name: {"value": need.value, "unit": need.unit, "how": need.how} for need in self.needs},
            "assumptions": {
                one.name: {"value": one.value, "unit": one.unit, "from": one.source} for one in self.assumptions
            },
        }


def read(changed: Mapping[str, float] | None = None) -> tuple[Assumptions, list[Stated]]:
    """The assumptions with what the caller changes, and where each comes from.

    Raises ValueError for an unknown name or an impossible value.
    """
    changed = changed or {}
    fields = {each.name: each for each in dataclasses.fields(Assumptions)}
    if unknown := sorted(set(changed) - set(fields)):
        raise ValueError(f"there is no assumption {unknown[0]!r}; they are {', '.join(fields)}")
    chosen, stated = Assumptions(**changed), list[Stated]()
    for name, each in fields.items():
        value: float = getattr(chosen, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a number above 0, not {value:g}")
        if name in SHARES and value > 1:
            raise ValueError(f"{name} is a share of 1, not {value:g}")
        source = "yours" if name in changed else str(each.metadata["from"])
        stated.append(Stated(name, value, str(each.metadata["unit"]), source))
    return chosen, stated


def make(changed: Mapping[str, float] | None = None) -> Plan:
    """What the assumptions lead to. Raises as `read` does."""
    a, stated = read(changed)
    hours = a.videos * a.clip_s / HOUR_S
    manual, auto = a.videos * a.manual_a_video, a.videos * a.auto_a_video
    candidates = auto / a.accept_share
    corrections = manual * (1 + a.again_share)
    masks_a_masklet = a.clip_s * a.annotated_fps

    verify = candidates * a.reviewed_share + corrections
    tickets = verify + corrections + manual
    verify_h = verify * (a.clip_s / a.watch_speed + a.verdict_s) / HOUR_S
    track_h = corrections * masks_a_masklet * a.frame_s / HOUR_S
    select_h = manual * a.select_s / HOUR_S
    people_h = verify_h + track_h + select_h
    weeks = people_h / (a.people * a.hours_a_week)

    frames = hours * HOUR_S * 24
    objects = candidates / a.videos
    frame_gpu_s = (1 + a.object_share * objects) / (1 + a.object_share) / a.gpu_fps
    propose_gpu_h = (frames * frame_gpu_s + a.videos * a.grid_s) / HOUR_S
    propagated = corrections * a.propagations * masks_a_masklet
    live_gpu_h = max(track_h / a.people_a_gpu, propagated / a.gpu_fps / HOUR_S)
    train_gpu_h = a.rounds * a.round_gpu_h
    gpu_h = propose_gpu_h + live_gpu_h + train_gpu_h

    masks = (candidates + manual + auto + corrections) * masks_a_masklet
    video_gb = hours * a.video_gb_h
    mask_gb = masks * a.mask_bytes / 1e9
    metadata_gb = a.videos * a.manifest_bytes / 1e9
    stored_gb = video_gb + mask_gb + metadata_gb
    puts, gets = a.videos * a.puts_a_video, a.videos * a.gets_a_video
    months = max(1.0, weeks * 7 / 30.4)
    cores_h = hours * a.ingest_core_h

    people_usd, gpu_usd = people_h * a.person_usd_h, gpu_h * a.gpu_usd_h
    core_usd = cores_h * a.core_usd_h
    store_usd = stored_gb * a.gb_usd_month * months + puts / 1000 * a.put_usd + gets / 1000 * a.get_usd
    return Plan(
        needs=(
            Need("video", hours, "hours", f"{a.videos:,.0f} videos"),
            Need("masklets", manual + auto, "masklets", _sum(manual=manual, auto=auto)),
            Need("candidates", candidates, "masklets", f"auto / accept_share: {objects:.1f} a video"),
            Need("tickets", tickets, "tickets", "verify, track and select"),
            Need("verify tickets", verify, "tickets", "candidates that people judge, and each correction"),
            Need("track tickets", corrections, "tickets", "manual, and what is sent back"),
            Need("select tickets", manual, "tickets", "one for each object that people pick"),
            Need("people's hours", people_h, "hours", _sum(verify=verify_h, track=track_h, select=select_h)),
            Need("weeks", weeks, "weeks", f"with {a.people:g} people at {a.hours_a_week:g} hours a week"),
            Need("claims", tickets / (weeks * a.hours_a_week * HOUR_S), "a second", "tickets over working hours"),
            Need("GPU-hours", gpu_h, "hours", _sum(propose=propose_gpu_h, live=live_gpu_h, train=train_gpu_h)),
            Need("GPUs for people", live_gpu_h / (weeks * a.hours_a_week), "GPUs", "live GPU-hours over working hours"),
            Need("core-hours", cores_h, "hours", "ingest"),
            Need("storage", stored_gb, "GB", _sum(videos=video_gb, masks=mask_gb, metadata=metadata_gb)),
            Need("writes", puts, "requests", "to the store"),
            Need("reads", gets, "requests", "from the store"),
            Need("money for people", people_usd, "USD", "people's hours"),
            Need("money for GPUs", gpu_usd, "USD", "GPU-hours"),
            Need("money for the store", store_usd, "USD", f"storage for {months:.1f} months, and requests"),
            Need("money", people_usd + gpu_usd + core_usd + store_usd, "USD", "all of it, with the cores"),
        ),
        assumptions=tuple(stated),
    )


def _sum(**parts: float) -> str:
    return ", ".join(f"{name} {value:,.1f}" if value < 10 else f"{name} {value:,.0f}" for name, value in parts.items())
