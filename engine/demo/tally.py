"""What simulated people did: verdicts, masklets, and the work that the queue's log shows too."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field

from engine.stages.work import Work


@dataclass
class Tally:
    """What the simulated people did."""

    verdicts: Counter[str] = field(default_factory=Counter)
    tracked: int = 0
    added: int = 0  # objects that no candidate showed
    edited_frames: int = 0
    annotated_frames: int = 0  # of the masklets that they made
    work: Work = field(default_factory=Work)

    def add(self, other: Tally) -> None:
        self.verdicts += other.verdicts
        self.tracked += other.tracked
        self.added += other.added
        self.edited_frames += other.edited_frames
        self.annotated_frames += other.annotated_frames
        self.work += other.work

    def as_json(self) -> dict[str, object]:
        """The tally as plain data, with the ratios that SA-V reports."""
        frames = max(1, self.annotated_frames)
        return asdict(self) | {
            "verdicts": dict(self.verdicts),
            "modelled_s": self.work.modelled_s,
            "clicks_per_clicked_frame": self.work.clicks / max(1, self.work.clicked_frames),
            "edited_share": self.edited_frames / frames,
        }
