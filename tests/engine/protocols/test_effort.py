"""The modelled time of annotators' work: the figures of the paper that it was made from."""

import pytest

from engine.protocols.effort import modelled_s


def test_a_frame_of_phase_1_with_the_clicks_of_the_paper_takes_its_37_8_seconds():
    assert modelled_s(clicks=24, painted=5) == pytest.approx(5 * 37.8)  # 4.8 clicks a frame


def test_a_correction_is_watching_finding_and_clicking():
    assert modelled_s(watched=300, located=1, clicks=3) == pytest.approx(30 + 1 + 4.5)
