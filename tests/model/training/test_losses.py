"""The losses: the fast gradients equal the plain ones, and absent objects give no gradient to masks."""

import pytest
import torch

from model.training.losses import dice_loss, focal_loss, mask_iou, step_losses
from model.training.recipe import LossWeights

WEIGHTS = LossWeights()


def a_step(candidates=3, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(4, candidates, 8, 8, requires_grad=True)
    target = torch.zeros(4, 16, 16)
    for n, (x, y, side) in enumerate([(2, 3, 6), (0, 0, 9), (8, 5, 5)]):
        target[n, y : y + side, x : x + side] = 1  # the fourth object is absent
    return logits, target


@pytest.mark.parametrize("candidates", [1, 3])
def test_only_the_best_mask_gets_the_gradients_that_all_masks_would_give_it(candidates):
    logits, target = a_step(candidates)
    found = step_losses(logits, torch.rand(4, candidates), torch.zeros(4), target, WEIGHTS)
    (20 * found.focal + found.dice).backward()
    short = logits.grad.clone()

    logits.grad = None
    full = torch.nn.functional.interpolate(logits, size=(16, 16), mode="bilinear", align_corners=False)
    focal, dice = focal_loss(full, target[:, None]), dice_loss(full, target[:, None])
    best = (20 * focal + dice).argmin(1)
    rows = torch.arange(3)
    (20 * focal[rows, best[:3]] + dice[rows, best[:3]]).mean().backward()
    torch.testing.assert_close(short, logits.grad, atol=1e-7, rtol=1e-5)
    for n in range(3):
        assert [bool(short[n, k].any()) for k in range(candidates)] == [k == int(best[n]) for k in range(candidates)]


def test_an_absent_object_gives_a_gradient_to_presence_and_not_to_masks():
    logits, target = a_step()
    score = torch.zeros(4, requires_grad=True)
    found = step_losses(logits, torch.rand(4, 3), score, target, WEIGHTS)
    found.total.backward()
    assert logits.grad is not None and score.grad is not None
    assert not logits.grad[3].any() and logits.grad[:3].any()
    assert (score.grad[:3] < 0).all() and score.grad[3] > 0


def test_masks_are_compared_at_twice_the_size_of_the_logits_at_most():
    logits, target = a_step()
    fine = target.repeat_interleave(2, 1).repeat_interleave(2, 2)  # four times the logits' side, the same masks
    iou, score = torch.rand(4, 3), torch.zeros(4)
    coarse = step_losses(logits, iou, score, target, WEIGHTS)
    torch.testing.assert_close(step_losses(logits, iou, score, fine, WEIGHTS).total, coarse.total)


def test_a_line_of_one_pixel_counts_as_present_and_gives_a_gradient_to_its_mask():
    logits, _ = a_step()
    line = torch.zeros(4, 32, 32)
    line[:, 9] = 1  # half of the cells that the loss sees
    score = torch.zeros(4, requires_grad=True)
    found = step_losses(logits, torch.rand(4, 3), score, line, WEIGHTS)
    found.total.backward()
    assert logits.grad is not None and score.grad is not None
    assert (score.grad < 0).all() and logits.grad.flatten(1).any(1).all()
    cells = torch.zeros(1, 16, 16)
    cells[:, 4] = 1
    assert (
        mask_iou(cells, cells / 2) == 0.5
        and mask_iou(0 * cells, cells / 2) == 0
        and mask_iou(0 * cells, 0 * cells) == 1
    )


def test_the_terms_weigh_as_in_the_paper():
    logits, target = a_step()
    found = step_losses(logits, torch.rand(4, 3), torch.zeros(4), target, LossWeights())
    torch.testing.assert_close(found.total, 20 * found.focal + found.dice + found.iou + found.occlusion)


def test_without_a_present_object_only_the_presence_loss_is_left():
    logits = torch.randn(2, 3, 16, 16, requires_grad=True)
    iou = torch.rand(2, 3)
    target = torch.zeros(2, 64, 64)
    losses = step_losses(logits, iou, torch.tensor([2.0, -2.0]), target, LossWeights())
    assert losses.focal == losses.dice == losses.iou == 0 and losses.occlusion > 0
