"""What is measured beside the losses: errors inside and outside the masks."""

from __future__ import annotations

from pathlib import Path

import pytest

from customvideo.backbones.base import load_backbone
from customvideo.methods.base import METHODS, ReadsMasks, load_method
from customvideo.methods.denoising import MaskGauge, gauged, mask_means, squared_error
from tests.cast import make_cast, quick_method
from tests.methods.batches import make_batch


def test_a_gauge_tells_inside_from_outside(tiny_zeroscope: Path) -> None:
    backbone, cast = load_backbone(tiny_zeroscope, "cpu"), make_cast()
    method = quick_method(prior_weight=1.0)
    adapter = method.trainable(backbone, cast)
    with adapter.attach(backbone):
        batch = make_batch(backbone, method, cast, adapter)
        with gauged() as gauge:
            error = squared_error(backbone, batch)
        # A closed gauge sees nothing more.
        squared_error(backbone, batch)
    found, inside = error[~batch.prior].detach(), batch.masks[~batch.prior].amax(dim=1)
    measured = mask_means(gauge.sums())
    assert measured["covered"] == pytest.approx(float(inside.mean()), abs=1e-5)
    assert measured["inside"] == pytest.approx(
        float((found * inside).sum() / inside.sum()), rel=1e-4
    )
    assert measured["outside"] == pytest.approx(
        float((found * (1 - inside)).sum() / (1 - inside).sum()), rel=1e-4
    )


def test_a_gauge_that_saw_nothing_tells_nothing() -> None:
    with gauged() as gauge:
        pass
    assert mask_means(gauge.sums()) == {} == MaskGauge().sums()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_says_what_it_does_with_masks(name: str) -> None:
    if name == "vace":
        pytest.skip("trains nothing, and says so")
    method = load_method(name)
    assert isinstance(method, ReadsMasks)
    expected = {
        "customvideo": ["attention control"],
        "disenstudio": ["errors inside one subject"],
        "dreamvideo": ["no error counts outside"],
        "mudi": ["cut-outs"],
    }
    assert method.mask_uses() == expected.get(name, [])


def test_settings_change_what_masks_do() -> None:
    options = {"attention_weight": 0.0, "masked_weight": 3.0, "compose": "paste"}
    method = load_method("customvideo", options)
    assert isinstance(method, ReadsMasks)
    assert method.mask_uses() == ["weighted errors", "cut-outs"]
    plain = load_method("dreamvideo", {"masked": False})
    assert isinstance(plain, ReadsMasks) and not plain.mask_uses()
