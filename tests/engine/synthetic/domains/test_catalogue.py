"""The domains: the same seed gives the same clip, the truth is what is drawn, and `micro` never saw one."""

import ast
from pathlib import Path

import numpy as np
import pytest

from engine.demo import micro
from engine.synthetic import micro_clips, objects, rendering, scene, textures
from engine.synthetic.domains.catalogue import DOMAINS, HELD_OUT
from engine.synthetic.domains.drawing import Size

SMALL = Size(height=120, width=160, frames=5, stride=12)


@pytest.fixture(params=list(DOMAINS))
def render(request):
    return DOMAINS[request.param].render


def test_a_seed_always_gives_the_same_clip_and_another_seed_another(render):
    one, again, other = render(3, SMALL), render(3, SMALL), render(4, SMALL)
    assert np.array_equal(one.frames, again.frames) and np.array_equal(one.masks, again.masks)
    assert not np.array_equal(one.frames, other.frames)
    t, n, h, w = one.masks.shape
    assert one.frames.shape == (5, 120, 160, 3) and one.frames.dtype == np.uint8
    assert (t, h, w) == (5, 120, 160) and n >= 2 and one.masks.dtype == bool


def test_objects_are_visible_move_and_differ_from_what_is_around_them(render):
    """Over a few clips: every clip shows an object, and pixels of objects differ from those just outside."""
    contrasts = []
    for seed in range(HELD_OUT, HELD_OUT + 4):
        clip = render(seed, SMALL)
        assert clip.masks[0].any(axis=(1, 2)).any(), "the first frame shows no object: nothing to prompt"
        moved = (clip.masks[0] != clip.masks[-1]).any(axis=(1, 2))
        assert moved.any()
        for n in np.flatnonzero(clip.masks[0].any(axis=(1, 2))):
            inside = clip.frames[0][clip.masks[0, n]].std()
            outside = clip.frames[0][~clip.masks[0].any(axis=0)].std()
            contrasts.append(abs(float(inside) - float(outside)))
    assert max(contrasts) > 3


def test_every_fourth_frame_at_24_fps_has_the_masks_of_the_clip_at_6_fps(render):
    fine = render(5, Size(height=120, width=160, frames=9, stride=1))
    coarse = render(5, Size(height=120, width=160, frames=3, stride=4))
    assert np.array_equal(fine.masks[::4], coarse.masks)


def test_no_recipe_of_micro_draws_from_a_domain():
    """Neither the module that made `micro` nor the modules that it draws with import a domain."""
    assert micro_clips.HELD_OUT_SEEDS < HELD_OUT
    for module in (micro, micro_clips, rendering, objects, scene, textures):
        tree = ast.parse(Path(module.__file__ or "").read_text())
        imported = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert not [module for module in imported if "domains" in module]
