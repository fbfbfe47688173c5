"""Attention losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from customvideo.attention.losses import (
    LOSS_FORMS,
    attention_loss,
    attention_share,
    mask_targets,
    pool_frames,
    shrink_masks,
)
from customvideo.errors import AttentionError

# One row, one word, one frame, a grid of 1x4 of which the left half is the subject.
MAP = torch.tensor([0.4, 0.2, 0.1, 0.0]).reshape(1, 1, 1, 1, 4)
MASK = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
PRESENT = torch.ones(1, 1, dtype=torch.bool)


def loss(form: str = "mse", nu: float = 0.1) -> float:
    return attention_loss({"site": MAP}, MASK, PRESENT, form=form, nu=nu).item()


def test_mse_by_hand() -> None:
    # Targets 1, 1, -0.1, -0.1.
    assert loss() == pytest.approx((0.36 + 0.64 + 0.04 + 0.01) / 4)


def test_mse_maxnorm_by_hand() -> None:
    # The map over its maximum: 1, 0.5, 0.25, 0.
    assert loss("mse_maxnorm") == pytest.approx((0 + 0.25 + 0.1225 + 0.01) / 4)


def test_bce_by_hand_ignores_nu() -> None:
    expected = -(math.log(0.4) + math.log(0.2) + math.log(0.9) + math.log(1.0)) / 4
    assert loss("bce") == pytest.approx(expected, rel=1e-5)
    assert loss("bce", nu=0.0) == loss("bce", nu=0.5)


def test_inner_by_hand() -> None:
    assert loss("inner") == pytest.approx(-(0.4 + 0.2 - 0.01) / 4)


def test_share_by_hand_ignores_nu_and_how_much_is_read() -> None:
    # 0.6 of 0.7 is read inside.
    assert loss("share") == pytest.approx((1 - 0.6 / 0.7) ** 2, rel=1e-5)
    assert loss("share", nu=0.0) == loss("share", nu=0.5)
    faint = attention_loss({"site": MAP / 10}, MASK, PRESENT, form="share").item()
    assert faint == pytest.approx(loss("share"), rel=1e-5)


def test_nu_zero_leaves_targets_zero_outside() -> None:
    assert loss(nu=0.0) == pytest.approx((0.36 + 0.64 + 0.01 + 0) / 4)


def test_masks_are_resampled_by_area_and_stay_soft() -> None:
    masks = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    assert shrink_masks(masks, (1, 2)).tolist() == [[0.75, 0.0]]


def test_a_cell_half_inside_has_the_mean_target() -> None:
    half = torch.full((1, 1, 2, 2), 0.5)
    target, weight = mask_targets(half, PRESENT, (1, 1), nu=0.2)
    assert target.flatten().tolist() == pytest.approx([0.4])
    assert weight.flatten().tolist() == [1.0]


def test_others_labels_only_the_subjects() -> None:
    # Word 0 left, word 1 right, background in the two middle columns.
    masks = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]).reshape(1, 2, 1, 4)
    present = torch.ones(1, 2, dtype=torch.bool)
    target, weight = mask_targets(masks, present, (1, 4), nu=0.1, outside="others")
    assert weight[0, 0].flatten().tolist() == [1, 0, 0, 1]
    assert target[0, 0, 0, 0, [0, 3]].tolist() == pytest.approx([1.0, -0.1])
    maps = {"site": MAP.repeat(1, 2, 1, 1, 1)}
    value = attention_loss(maps, masks, present, nu=0.1, outside="others").item()
    first, second = (0.36 + 0.01) / 2, (0.25 + 1.0) / 2
    assert value == pytest.approx((first + second) / 2)


def test_others_ignores_words_that_are_not_present() -> None:
    masks = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]).reshape(1, 2, 1, 4)
    present = torch.tensor([[True, False]])
    _, weight = mask_targets(masks, present, (1, 4), outside="others")
    assert weight[0, 0].flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("form", sorted(LOSS_FORMS))
def test_absent_words_and_rows_contribute_nothing(form: str) -> None:
    torch.manual_seed(0)
    seen = torch.rand(2, 3, 1, 4, 6)
    masks = torch.rand(2, 3, 8, 12)
    present = torch.tensor([[True, False, True], [False, False, False]])
    noisy, changed = seen.clone(), masks.clone()
    noisy[~present], changed[~present] = 0.0, 0.0
    maps, other = {"a": seen.requires_grad_()}, {"a": noisy.requires_grad_()}
    value = attention_loss(maps, masks, present, form=form)
    assert value == attention_loss(other, changed, present, form=form)
    value.backward()
    assert seen.grad is not None
    assert seen.grad[present].abs().sum() > 0
    assert seen.grad[~present].abs().sum() == 0


@pytest.mark.parametrize("form", sorted(LOSS_FORMS))
def test_nothing_present_is_zero_with_a_zero_gradient(form: str) -> None:
    blank = torch.zeros(1, 1, 1, 2, 2, requires_grad=True)
    value = attention_loss({"a": blank}, torch.zeros(1, 1, 2, 2), ~PRESENT, form=form)
    value.backward()
    assert value.item() == 0
    assert blank.grad is not None and not blank.grad.any()


def test_sites_of_different_grids_count_alike() -> None:
    coarse = torch.tensor([0.5, 0.1]).reshape(1, 1, 1, 1, 2)
    both = attention_loss({"fine": MAP, "coarse": coarse}, MASK, PRESENT, nu=0.1).item()
    alone = attention_loss({"coarse": coarse}, MASK, PRESENT, nu=0.1).item()
    assert alone == pytest.approx((0.25 + 0.04) / 2)
    assert both == pytest.approx((loss() + alone) / 2)


def test_masks_with_a_frame_axis_follow_the_frames() -> None:
    maps = {"site": torch.cat([MAP, MAP.flip(-1)], dim=2)}
    moving = torch.stack([MASK, MASK.flip(-1)], dim=2)
    still = attention_loss(maps, MASK, PRESENT, nu=0.1).item()
    assert attention_loss(maps, moving, PRESENT, nu=0.1).item() == pytest.approx(loss())
    mirrored = (1.0 + 0.81 + 0.09 + 0.25) / 4
    assert still == pytest.approx((loss() + mirrored) / 2)


def test_half_precision_maps_are_compared_in_float32() -> None:
    value = attention_loss({"site": MAP.bfloat16()}, MASK.bfloat16(), PRESENT)
    assert value.dtype == torch.float32


def test_attention_share_by_hand() -> None:
    # 6/7 of the attention on half of the area.
    assert attention_share({"site": MAP}, MASK).item() == pytest.approx(6 / 7 / 0.5)
    even = {"site": torch.full((1, 1, 2, 1, 4), 0.3), "other": MAP}
    assert attention_share(even, MASK).item() == pytest.approx((1 + 12 / 7) / 2)


def test_attention_share_of_an_unread_word_is_zero() -> None:
    assert attention_share({"site": torch.zeros(1, 1, 1, 1, 4)}, MASK).item() == 0


def test_wrong_use_is_refused() -> None:
    with pytest.raises(AttentionError, match="no attention loss 'l1'; choose one of mse"):
        loss("l1")
    with pytest.raises(AttentionError, match="got no maps"):
        attention_loss({}, MASK, PRESENT)
    with pytest.raises(AttentionError, match="nu of the negative target is -1"):
        loss(nu=-1)


def test_masks_that_move_are_pooled_to_the_frames_of_the_maps() -> None:
    masks = torch.zeros(1, 1, 4, 2, 2)
    masks[:, :, 2:, 0] = 1
    pooled = pool_frames(masks, 2)
    assert pooled.shape == (1, 1, 2, 2, 2)
    assert pooled[0, 0, :, 0, 0].tolist() == [0, 1]
    maps = torch.zeros(1, 1, 2, 2, 2)
    maps[:, :, 1, 0] = 0.5
    present = torch.ones(1, 1, dtype=torch.bool)
    right = attention_loss({"a": maps}, masks, present, form="share")
    wrong = attention_loss({"a": maps.flip(2)}, masks, present, form="share")
    assert float(right) == pytest.approx(0, abs=1e-6)
    assert float(wrong) == pytest.approx(1, abs=1e-6)
    assert pool_frames(masks[:, :, :1], 2).shape[2] == 1
