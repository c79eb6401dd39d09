"""LoRA in the benchmark of little data: what it measures is the model that it trained."""

from __future__ import annotations

import torch
from transformers import Sam2VideoModel

from benchmarks.models import low_rank
from model import architecture, checkpoints


def test_a_merged_model_answers_as_the_one_that_was_trained_and_the_encoder_itself_is_unchanged() -> None:
    plain = checkpoints.load("micro").model
    changed = low_rank.begin(plain)
    pixels = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))

    def encoded(model: Sam2VideoModel) -> torch.Tensor:
        with torch.no_grad():
            answer: torch.Tensor = model.vision_encoder(pixels).last_hidden_state
        return answer

    assert torch.equal(encoded(changed), encoded(plain)), "the changes are zero at first"
    for change in changed.changes.values():
        assert isinstance(change, low_rank.LowRank)
        torch.nn.init.constant_(change.up, 0.01)
    copy = architecture.resized(changed, 256)  # as between the stages of a training
    merged = low_rank.merged(copy)
    assert not torch.allclose(encoded(copy), encoded(plain), atol=1e-3)
    assert torch.allclose(encoded(merged), encoded(copy), atol=1e-4) and type(merged) is type(plain)
    own = [name for name, _ in changed.named_parameters() if name.startswith("vision_encoder")]
    assert all(torch.equal(changed.get_parameter(name), plain.get_parameter(name)) for name in own)
    assert low_rank.merged(plain) is plain
