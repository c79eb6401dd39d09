"""The card of a release says what is true of it, and guesses nothing."""

import json
import re
from dataclasses import replace

import pytest

from engine.views import card, figures
from storage.dataset import parts
from storage.formats import imported
from storage.masklet_rules import RULES
from storage.records import Quarantined
from tests.engine.views.small_releases import masklet_of, publish, track


def card_of(s, release):
    return card.write(s, release, figures.of(release, s.tables))


def named(text, *words):
    """Whether one of the words stands in the text. The hashes of a card may hold the letters a to f by chance."""
    return re.search(rf"\b({'|'.join(words)})\b", text) is not None


def section(text, title):
    return text.partition(f"## {title}\n\n")[2].partition("\n\n## ")[0]


def test_the_card_has_counts_makers_people_checks_and_how_to_read_it(s):
    rows = [
        masklet_of("auto", track(0, 0, None, 0, 0, 0), verified_by="bo", split="val"),
        masklet_of("hand", track(40, 40, 40, 40, 40, 40), kind="manual", phase="1", split="val", annotated_by="ada"),
        masklet_of("clicked", track(40), kind="manual", phase="3", annotated_by="ada", checkpoint="round-002"),
    ]
    release = publish(s, rows)
    refused = Quarantined(stage="publish", subject="m9", reason="area", detail="frame 0: 3 px", batch_id="b1")
    parts.write_part(s.blobs, kind="quarantine", batch_id="b1", video_id="publish", rows=[refused])
    parts.commit_batch(s.blobs, s.tables, "quarantine", "b1")
    text = card_of(s, release)
    assert text.startswith("# release-0001\n\n3 masklets of 1 video (0.00 hours), 12 masks on 6 annotated frames.")
    assert "| manual | 1 | 0.000 | 2 | 7 | 6 | 0.0% | 2.0 |" in text
    assert "| round-002 | 1 | 0 |" in section(text, "How it was made")
    who = section(text, "Who worked on it")
    assert "1 annotator." in who and "1 reviewer." in who
    assert not named(text, "ada", "bo")
    checks = section(text, "Checks")
    assert all(f"- {name}: {meaning}" in checks for name, meaning in RULES.items())
    assert "refused 1 masklet so far: area 1." in checks
    assert "- flicker: 1 masklet (33.3%)" in checks
    limits = section(text, "Known limits")
    assert "33% of the masklets are a model's own" in limits
    assert "1 held-out masklet (val, test) made with a model" in limits
    assert "`micro` proposed" in limits and "Few videos (1)" in limits
    assert f"`{release.digest}`" in text


def test_the_short_card_has_the_totals_and_what_the_batch_added_and_reads_nothing(s):
    publish(s, [masklet_of("first", track(0, 0))])
    rows = [masklet_of("m", track(9), "v2", "b2", kind="manual", annotated_by="ada", checkpoint="round-002")]
    release = publish(s, rows, "release-0002", source_metadata=json.dumps({"license": "CC0"}))
    videos = release.videos()
    closed = replace(release, blobs=None)
    added = card.Added(batch="b2", videos=videos, masklets=rows, refused={"area": 2})
    text = card.short(closed, "It adds to release-0001.", added)
    assert text.startswith("# release-0002\n\n2 masklets of 2 videos, 3 masks. A masklet is")
    assert "| all | 2 | 2 | 3 |\n| auto | 1 | 1 | 2 |\n| manual | 1 | 1 | 1 |\n| train | 2 | 2 | 3 |" in text
    assert "| manual | 1 | 0.000 | 1 | 1 | 6 |" in section(text, "What batch b2 added")
    assert "| round-002 | 1 | 0 |" in section(text, "How they were made")
    assert section(text, "Licences of their videos") == "- CC0: 1 video" and not named(text, "ada")
    assert "Batch b2 has masklets that were refused: area 2." in section(text, "Checks")
    assert f"`{release.digest}`" in text and "`masklets card release-0002` makes the full one" in text
    plain = card.short(closed, "It has the masklets of release-0001, in larger files.")
    assert "| all | 2 | 2 | 3 |" in plain and not named(plain, "added")


@pytest.mark.parametrize(
    ("metadata", "line"),
    [
        (None, "- not stated by the source: 1 video."),
        ('{"video_environment": "Outdoor"}', "- not stated by the source: 1 video."),
        ("no json", "- not stated by the source: 1 video."),
        ("[]", "- not stated by the source: 1 video."),
        (json.dumps({"license": "CC BY\n4.0"}), "- CC BY 4.0: 1 video"),
    ],
)
def test_a_licence_is_said_only_if_the_source_states_it(s, metadata, line):
    release = publish(s, [masklet_of("m", track(0))], source_metadata=metadata)
    assert section(card_of(s, release), "Licences").startswith(line)


@pytest.mark.parametrize("form", imported.CHECKPOINTS)
def test_imported_masklets_are_said_to_be_imported(s, form):
    release = publish(s, [masklet_of("m", track(0), checkpoint=form, split="val")], changes=("cropped, 1 px",))
    text = card_of(s, release)
    assert f"1 masklet came from files of {imported.CHECKPOINTS[form]}:" in text
    assert "Ingest changed: 1 video cropped." in text
    assert "its masklets were imported" in section(text, "Who worked on it")
    assert "made with a model in the loop" not in text
