"""What simulated people did: how many verdicts, clicks and frames, and the modelled time."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field


@dataclass
class Tally:
    """What the simulated people did. modelled_s: modelled seconds of their work."""

    verdicts: Counter[str] = field(default_factory=Counter)
    tracked: int = 0
    added: int = 0  # objects that no candidate showed
    clicks: int = 0
    clicked_frames: int = 0
    edited_frames: int = 0
    annotated_frames: int = 0
    modelled_s: float = 0.0

    def add(self, other: Tally) -> None:
        self.verdicts += other.verdicts
        self.tracked += other.tracked
        self.added += other.added
        self.clicks += other.clicks
        self.clicked_frames += other.clicked_frames
        self.edited_frames += other.edited_frames
        self.annotated_frames += other.annotated_frames
        self.modelled_s += other.modelled_s

    def as_json(self) -> dict[str, object]:
        """The tally as plain data, with the ratios that SA-V reports."""
        frames = max(1, self.annotated_frames)
        return asdict(self) | {
            "verdicts": dict(self.verdicts),
            "clicks_per_clicked_frame": self.clicks / max(1, self.clicked_frames),
            "edited_share": self.edited_frames / frames,
        }
