"""A real, tiny SAM 2 video model with random weights, and moving pictures for it.

Imports torch in functions only: the fast tests of this folder start without it.
"""

import numpy as np
import pytest


def loud_model(seed=4, presence=1.0):
    """A model with large random answers that differ between objects, so that a comparison can fail.

    presence: what is added to every presence score.
    """
    import torch
    from torch import nn

    from model import architecture, checkpoints

    torch.set_num_threads(1)
    model = architecture.build(
        architecture.Shape(image_size=128, embed_dim=16, blocks=(1, 1, 2, 1), decoder_mlp=64, memory_mlp=128)
    )
    architecture.init_weights(model, seed, embedding_std=1.0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                module.weight.mul_(1.7)  # more would amplify the rounding of bfloat16 memories
        model.mask_decoder.pred_obj_score_head.proj_out.bias.add_(presence)
    return checkpoints.wrap(model, name="tiny")


@pytest.fixture(scope="session")
def loaded():
    """About 1.7 million random parameters at 128 px; every object is present."""
    return loud_model()


@pytest.fixture(scope="session")
def doubtful():
    """A model that sees objects come and go."""
    return loud_model(seed=1, presence=0.94)


@pytest.fixture(scope="session")
def clip():
    """Frames uint8 (T, H, W, 3) of two moving shapes on a textured background, and their masks bool (T, 2, H, W)."""
    t, h, w = 12, 96, 160
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 120, (h // 8, w // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    y, x = np.mgrid[:h, :w]
    masks = np.zeros((t, 2, h, w), dtype=bool)
    frames = np.repeat(ground[None], t, 0)
    for i in range(t):
        masks[i, 0] = (x - 40 - 5 * i) ** 2 + (y - 40 - i) ** 2 < 18**2
        masks[i, 1] = (abs(x - 120 + 3 * i) < 12) & (abs(y - 70) < 16)
        frames[i][masks[i, 1]] = (40, 200, 80)
        frames[i][masks[i, 0]] = (220, 60, 50)
        masks[i, 1] &= ~masks[i, 0]
    return frames, masks
