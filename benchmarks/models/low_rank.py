"""LoRA, to compare with training whole weights: `micro` with low-rank changes of its image encoder's matrices.

Source: Hu et al. 2021, section 4.1. The changes are parameters outside the encoder, so that a stage which trains
"memory" trains them, and leaves the encoder's own weights as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Sam2VideoConfig, Sam2VideoModel

RANK, SCALE = 8, 2.0


class LowRank(nn.Module):
    """A change of a linear layer's matrix: `SCALE * up @ down`, zero at first."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(RANK, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, RANK))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """What the change adds to the layer's output. x: (..., in_features)."""
        return SCALE * (x @ self.down.t()) @ self.up.t()


class LowRankModel(Sam2VideoModel):
    """A `Sam2VideoModel` with a change of each linear layer of its encoder."""

    def __init__(self, config: Sam2VideoConfig) -> None:
        super().__init__(config)
        self.changes = nn.ModuleDict()
        for name, layer in self.vision_encoder.named_modules():
            if isinstance(layer, nn.Linear):
                self.changes[name.replace(".", "/")] = change = LowRank(layer)
                layer.register_forward_hook(lambda _, given, out, change=change: out + change(given[0]))


def begin(model: Sam2VideoModel) -> LowRankModel:
    """The model with changes that are still zero."""
    made = LowRankModel(model.config)
    made.load_state_dict(model.state_dict(), strict=False)
    made.train(model.training)
    return made


def merged(model: Sam2VideoModel) -> Sam2VideoModel:
    """A plain model with the changes in its matrices; the model itself if it has none."""
    if not isinstance(model, LowRankModel):
        return model
    state = {name: t.detach() for name, t in model.state_dict().items() if not name.startswith("changes.")}
    for path, change in model.changes.items():
        assert isinstance(change, LowRank)
        name = f"vision_encoder.{path.replace('/', '.')}.weight"
        state[name] = state[name] + SCALE * (change.up @ change.down).detach()
    plain = Sam2VideoModel(model.config)
    plain.load_state_dict(state)
    plain.train(model.training)
    return plain
