"""What a target cannot carry is refused with the reason and the way out, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from customvideo.adapters.build import DeltaSpec
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError, ConfigError, UserError
from customvideo.exports.base import export
from customvideo.exports.order import Order
from customvideo.exports.possible import POSSIBLE
from tests.exports.conftest import learned


def refused(order: Order, out: Path, kind: type[UserError] = AdapterError) -> str:
    with pytest.raises(kind) as caught:
        export(order, out)
    assert not list(out.parent.iterdir()), "something was left behind"
    text = str(caught.value)
    assert text.endswith(".") and "  " not in text
    return text


@pytest.mark.parametrize(
    ("family", "target", "reason"),
    [
        ("unet3d", "comfyui", "ComfyUI draws with no model of this family"),
        ("unet3d", "kohya", "gives no LoRA loader"),
        ("wan", "textual-inversion", "none of CLIP's"),
        ("ltx", "kohya", "no loader of kohya's names"),
    ],
)
def test_a_family_that_the_target_does_not_know(
    family: str, target: str, reason: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone: Backbone = request.getfixturevalue(family)
    said = refused(Order(learned(backbone), backbone, target), tmp_path / "out")
    assert reason in said and f"choose {POSSIBLE[family][0]}" in said


@pytest.mark.parametrize("target", ["diffusers", "comfyui", "merged-folder"])
def test_deltas_of_text_rows_alone_are_no_lora(
    cogvideox: Backbone, target: str, tmp_path: Path
) -> None:
    said = refused(Order(learned(cogvideox), cogvideox, target), tmp_path / "out")
    assert "text alone" in said


@pytest.mark.parametrize("target", ["diffusers", "comfyui", "kohya", "merged-folder"])
def test_gated_deltas_are_no_lora(wan: Backbone, target: str, tmp_path: Path) -> None:
    adapter = learned(wan, gate="words")
    said = refused(Order(adapter, wan, target), tmp_path / "out")
    assert "heard at its words alone" in said and "gate=none" in said


@pytest.mark.parametrize("target", ["diffusers", "comfyui", "merged-folder"])
def test_words_behind_the_text_encoder_stay_here(
    wan: Backbone, target: str, tmp_path: Path
) -> None:
    said = refused(Order(learned(wan, space="output"), wan, target), tmp_path / "out")
    assert "word_space=input" in said


@pytest.mark.parametrize("target", ["diffusers", "merged-folder"])
def test_bottlenecks_fit_into_no_stock_model(unet3d: Backbone, target: str, tmp_path: Path) -> None:
    sites = unet3d.sites(1, *unet3d.size)
    paths = {site.path: DeltaSpec(kind="bottleneck") for site in sites}
    said = refused(Order(learned(unet3d, paths), unet3d, target), tmp_path / "out")
    assert "bottleneck" in said and "generate with customvideo" in said


@pytest.mark.parametrize(
    ("family", "target"), [("wan", "comfyui"), ("unet3d", "diffusers"), ("animatediff", "kohya")]
)
def test_whole_weights_need_a_merged_folder(
    family: str, target: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone: Backbone = request.getfixturevalue(family)
    paths = {backbone.layers("denoiser")[0]: DeltaSpec(kind="weight")}
    said = refused(Order(learned(backbone, paths), backbone, target), tmp_path / "out")
    assert paths.keys() <= set(said.split("'")) and "choose merged-folder" in said


@pytest.mark.parametrize("family", ["unet3d", "animatediff"])
def test_layers_without_a_place_there(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone: Backbone = request.getfixturevalue(family)
    paths = {backbone.layers("encoder_attention")[0]: DeltaSpec(rank=2)}
    said = refused(Order(learned(backbone, paths), backbone, "diffusers"), tmp_path / "out")
    assert "text_encoder" in said and "choose merged-folder" in said


def test_motion_modules_are_not_in_files_of_pictures(animatediff: Backbone, tmp_path: Path) -> None:
    path = next(
        path for path in animatediff.layers("denoiser") if "motion" in path and "to_q" in path
    )
    adapter = learned(animatediff, {path: DeltaSpec(rank=2)})
    said = refused(Order(adapter, animatediff, "comfyui"), tmp_path / "out")
    assert path in said and "merged-folder" in said


@pytest.mark.parametrize(
    ("target", "options", "reason"),
    [
        ("diffusers", {"rank": 0}, "drop or refuse"),
        ("kohya", {"rank": 0}, "drop or refuse"),
        ("comfyui", {"rank": -1}, "is no rank"),
        ("merged-folder", {"rank": 4}, "leave it out"),
        ("comfyui", {"words_only": True}, "--words-only"),
        ("comfi", {}, "did you mean 'comfyui'?"),
    ],
)
def test_options_that_a_target_does_not_take(
    wan: Backbone, target: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason.replace("?", r"\?")):
        export(Order(learned(wan), wan, target, **options), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_textual_inversion_would_lose_the_deltas(unet3d: Backbone, tmp_path: Path) -> None:
    said = refused(Order(learned(unet3d), unet3d, "textual-inversion"), tmp_path / "out")
    assert "losing what it learned" in said and "--words-only" in said


def test_another_backbones_adapter(wan: Backbone, unet3d: Backbone, tmp_path: Path) -> None:
    assert "made for the backbone" in refused(
        Order(learned(unet3d), wan, "comfyui"), tmp_path / "out"
    )


def test_methods_that_draw_their_own_way_are_told(unet3d: Backbone, tmp_path: Path) -> None:
    adapter = learned(unet3d, method="mudi")
    found = export(Order(adapter, unet3d, "diffusers"), tmp_path / "out")
    assert any("'mudi' draws its videos in a way of its own" in note for note in found.notes)
    assert "way of its own" in (tmp_path / "out" / "README.md").read_text()
