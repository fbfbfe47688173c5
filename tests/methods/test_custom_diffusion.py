"""Custom Diffusion: what trains, what it sees, and diffusers and CustomVideo as references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.config import load_recipe
from customvideo.errors import ConfigError
from customvideo.methods.base import Batch, Method, load_method
from customvideo.methods.custom_diffusion import CustomDiffusion, CustomDiffusionConfig
from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
from customvideo.methods.scaling import PHOTO
from customvideo.subjects.subject import Subject
from customvideo.training.trainer import StepReport, Trainer
from tests.cast import CANVAS, make_cast, short_run
from tests.methods.batches import make_batch, move, stock_errors, stock_unet

QUICK = {"prior_samples": 4, "prior_sampling_steps": 1}


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> Backbone:
    return load_backbone(tiny_zeroscope, device="cpu")


@pytest.fixture(scope="module")
def cast() -> list[Subject]:
    return make_cast()


def test_words_keys_and_values_train_and_the_first_position_does_not(
    backbone: Backbone, cast: list[Subject]
) -> None:
    adapter = CustomDiffusion().trainable(backbone, cast)
    assert list(adapter.deltas) == backbone.layers("text_kv")
    assert all(delta.holds_first for delta in adapter.deltas.values())  # type: ignore[attr-defined]
    table = backbone.tables()[0]
    rare = table.tokenizer.convert_tokens_to_ids(["ktn</w>", "pll</w>"])
    assert torch.equal(adapter.tokens.value, table.embedding.weight[rare])  # type: ignore[index]
    assert CustomDiffusion().watches(backbone, 1, *CANVAS) == []


def test_a_scene_is_one_scaled_photo(cast: list[Subject]) -> None:
    rng, seen, begun = np.random.default_rng(0), set(), set()
    for _ in range(40):
        (example,) = CustomDiffusion().scenes(cast, rng, CANVAS)
        (word,) = example.prompt.mentioned
        assert example.extra["valid"].shape == CANVAS
        assert f"photo of a {word.word} {word.category}" in example.prompt.text
        seen.add(word.name)
        begun.add(example.prompt.text.partition("photo")[0].strip())
    assert seen == {"tom", "rex"}
    assert begun == {"", "a far away", "very small", "zoomed in", "close up"}
    plain = CustomDiffusion(CustomDiffusionConfig(augment=False, prompt="{subjects}"))
    (example,) = plain.scenes(cast, rng, CANVAS)
    assert not example.extra and example.prompt.text in ("a <tom> cat", "a <rex> dog")


@pytest.mark.parametrize("prompt", ["a photo", "{subjects} {size}"])
def test_a_prompt_without_its_place_is_refused(prompt: str) -> None:
    with pytest.raises(ConfigError, match=r"'prompt' cannot be .* text with \{subjects\}"):
        load_method("custom_diffusion", {"prompt": prompt})


def with_stock_processors(unet: Any, backbone: Backbone, adapter: Adapter) -> dict[str, Any]:
    """Put diffusers' processors with the summed weights on `unet`; path of a layer -> weight."""
    weights = {}
    for site in backbone.sites(1, *CANVAS):
        attention = unet.get_submodule(site.path)
        width, text = attention.to_k.weight.shape
        processor: Any = CustomDiffusionAttnProcessor(True, False, width, text)
        for name in ("to_k", "to_v"):
            path, own = f"{site.path}.{name}", getattr(processor, f"{name}_custom_diffusion")
            own.load_state_dict(
                {"weight": getattr(attention, name).weight + adapter.deltas[path].weight}
            )
            weights[path] = own.weight
        attention.set_processor(processor)
    return weights


def test_losses_and_gradients_are_those_of_diffusers(
    backbone: Backbone, cast: list[Subject], tiny_zeroscope: Path
) -> None:
    """The stock denoiser with its CustomDiffusionAttnProcessor, and the masked loss by hand."""
    method = CustomDiffusion(CustomDiffusionConfig(prior_weight=0.7))
    adapter, unet = method.trainable(backbone, cast), stock_unet(tiny_zeroscope)
    move(adapter)
    weights = with_stock_processors(unet, backbone, adapter)
    with adapter.attach(backbone):
        batch = make_batch(backbone, method, cast, adapter)
        found = method.losses(backbone, batch, None)
        sum(found.values()).backward()  # type: ignore[union-attr]
        gradients = {path: delta.weight.grad for path, delta in adapter.deltas.items()}
        words, adapter.tokens.value.grad = adapter.tokens.value.grad, None
        error = stock_errors(backbone, unet, batch)
        masks = counted(batch)
        instance = (error[:3].mean(dim=1) * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
        wanted = {"reconstruction": instance.mean(), "prior": 0.7 * error[3:].mean()}
        sum(wanted.values()).backward()  # type: ignore[union-attr]
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
    for path, weight in weights.items():
        torch.testing.assert_close(gradients[path], weight.grad, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(words, adapter.tokens.value.grad, atol=1e-6, rtol=1e-3)


def counted(batch: Batch) -> torch.Tensor:
    """Cells of the scenes that hold photo only and touch no blank, found one by one."""
    masks = torch.zeros(3, 8, 12)
    for index, valid in enumerate(batch.extra["valid"][:3]):
        for row in range(8):
            for column in range(12):
                top, left = max(0, 8 * row - 8), max(0, 8 * column - 8)
                around = valid[top : 8 * row + 16, left : 8 * column + 16]
                masks[index, row, column] = float(around.all())
    assert (masks.sum(dim=(1, 2)) > 0).all() and (masks == 0).any()
    return masks


def trained(method: Method, backbone: Backbone, cache: Path) -> tuple[list[Any], Adapter]:
    reports: list[StepReport] = []
    config = short_run(steps=3, prior_cache=str(cache), pool=6)
    adapter = Trainer(config, on_step=reports.append).fit(backbone, method, make_cast())
    return [(one.parts, one.grad_norm) for one in reports], adapter


def test_customvideo_without_its_ideas_is_custom_diffusion(
    backbone: Backbone, tmp_path: Path
) -> None:
    """No composition and no attention control; the first position, words and prompts as there."""
    plain = CustomVideo(
        CustomVideoConfig(
            compose="scaled",
            prompts=(PHOTO,),
            attention_weight=0.0,
            bos_rule=True,
            initial="rare",
            prior_prompt="photo of a {category}",
            **QUICK,
        )
    )
    theirs = CustomDiffusion(CustomDiffusionConfig(**QUICK))
    (one, first), (other, second) = (
        trained(method, backbone, tmp_path) for method in (plain, theirs)
    )
    assert one == other and all(set(parts) == {"reconstruction", "prior"} for parts, _ in one)
    parameters = dict(second.named_parameters())
    start = dict(theirs.trainable(backbone, make_cast()).named_parameters())
    for name, value in first.named_parameters():
        assert torch.equal(value, parameters[name])
        assert not torch.equal(value, start[name])


def test_scores_agree_with_customvideo(backbone: Backbone, cast: list[Subject]) -> None:
    theirs, plain = CustomDiffusion(), CustomVideo(CustomVideoConfig(compose="scaled"))
    adapter = theirs.trainable(backbone, cast)
    with torch.no_grad(), adapter.attach(backbone):
        batch = make_batch(backbone, theirs, cast, adapter)
        scores = [method.score(backbone, batch, None) for method in (theirs, plain)]
    assert scores[0].isfinite() and torch.equal(*scores)


def test_the_toybox_recipe_keeps_to_words_the_toybox_knows() -> None:
    options = load_recipe("custom_diffusion-toybox").method_options
    assert (options["prompt"], options["prior_prompt"]) == ("{subjects}", "a {category}")
    assert load_method("custom_diffusion", options).config.model_dump(mode="json") == options
