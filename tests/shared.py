"""Where the real videos and annotations are that some tests read, if they are there: beside the project's folder."""

from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared" / "data"
