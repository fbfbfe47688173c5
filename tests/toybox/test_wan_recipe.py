"""The Wan edition's recipe at its smallest: stages run, losses fall, stock diffusers loads what
comes out, and it is customized like any other folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from rich.console import Console
from torch import Tensor

from customvideo.attention.tape import watch
from customvideo.backbones.base import called, draws_toys, load_backbone, recipes_of
from customvideo.backbones.sampling import denoise
from customvideo.backbones.wan import TOKENS, Wan, text_sites
from customvideo.config import compose_recipe, load_recipe
from customvideo.errors import BackboneError
from customvideo.runs.scoring import encoders_for, finder_for
from customvideo.toybox import models, wan_models
from customvideo.toybox.captions import vocabulary
from customvideo.toybox.commands import EDITIONS
from customvideo.toybox.judges import ToyClip
from customvideo.toybox.names import names
from customvideo.toybox.recipe.dataset import Shelf, load_split
from customvideo.toybox.recipe.denoiser import Diet
from customvideo.toybox.recipe.draw import unit
from customvideo.toybox.recipe.muon import Muon
from customvideo.toybox.recipe.wan import WanConfig, WanPretraining
from customvideo.toybox.recipe.wan_autoencoder import (
    WanAutoencoderStage,
    by_pictures,
    encode_clips,
    start_from_patches,
)
from customvideo.toybox.recipe.wan_denoiser import WanDenoiserStage, WanShelf, finer
from customvideo.training.progress import StepReport
from customvideo.training.trainer import Trainer
from tests.cast import make_cast, quick_method, short_run
from tests.surroundings import contents, run_cli

TINY = WanConfig(
    lone=4,
    pictures=10,
    clips=2,
    autoencoder_steps=2,
    coarse_steps=2,
    denoiser_steps=2,
    motion_steps=2,
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("wan")
    WanPretraining(TINY, work, "cpu", lambda line: None).run()
    return work


@pytest.fixture(scope="module")
def folder(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    WanPretraining(TINY, work, "cpu", lambda line: None).export(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Wan:
    loaded = load_backbone(folder, device="cpu")
    assert isinstance(loaded, Wan)
    return loaded


def shelf(work: Path, name: str) -> Shelf:
    return load_split(TINY.splits()[name], TINY.seed, work / "data")


def fallen(modules: torch.nn.Module, stage: Any, steps: int, rate: float) -> tuple[float, float]:
    """The total loss of step 0 before and after `steps` steps."""
    optimizer = Muon(modules, rate)

    def total(step: int) -> Tensor:
        return torch.stack(list(stage(step).values())).sum()

    first = float(total(0).detach())
    for step in range(steps):
        loss = total(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return first, float(total(0).detach())


def test_what_comes_out_is_small_and_says_what_it_is(folder: Path, backbone: Wan) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= 8e6
    assert (backbone.name, backbone.licence) == ("toybox-wan", "apache-2.0")
    assert (backbone.frames, backbone.fps, backbone.size) == (9, 16.0, (64, 96))
    assert "cat" in backbone.known_nouns and backbone.known_words is not None
    assert not folder.with_name("model.new").exists()


def test_a_length_that_the_autoencoder_would_cut_is_refused(backbone: Wan) -> None:
    assert backbone.latent_shape(9, 64, 96) == (16, 5, 8, 12)
    with pytest.raises(BackboneError, match="1, 5, 9, … frames, not 7: choose"):
        backbone.latent_shape(7, 64, 96)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 9])
def test_stock_diffusers_makes_the_same_video(folder: Path, backbone: Wan, frames: int) -> None:
    stock = WanPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, *backbone.latent_shape(frames, 64, 96), generator=generator)
    told = {"prompt": "a red cat", "negative_prompt": "", "height": 64, "width": 96}
    expected = stock(
        **told,
        num_frames=frames,
        num_inference_steps=3,
        guidance_scale=5.0,
        latents=latents.clone(),
        output_type="pt",
    ).frames
    text, empty = (backbone.encode_prompt([one]) for one in ("a red cat", ""))
    found = denoise(backbone, latents, text, empty, steps=3, guidance=5.0, solver="native")
    made = (backbone.decode_frames(found) + 1) / 2
    assert (made - expected).abs().max() < 1e-3


def test_every_name_is_one_token_with_the_toyboxs_own_number() -> None:
    words = sorted({*vocabulary(), *names()})
    own, plain = wan_models.build_tokenizer(words), models.build_tokenizer(words)
    for name in names():
        assert own(name).input_ids == [plain(name).input_ids[1], own.eos_token_id]
    assert own.decode(own("a Red cat, unheardof").input_ids[:-1]) != ""
    assert own.pad_token_id != own.eos_token_id


@torch.no_grad()
def test_convolutions_over_time_are_those_of_pictures_side_by_side() -> None:
    torch.manual_seed(0)
    vae, frames = wan_models.build_autoencoder(), torch.randn(1, 3, 9, 16, 24)
    latents = vae.encode(frames).latent_dist.mean
    decoded = vae.decode(latents).sample
    by_pictures(vae)
    torch.testing.assert_close(vae.encode(frames).latent_dist.mean, latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(vae.decode(latents).sample, decoded, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_encoder_starts_as_a_linear_code_and_a_mean_over_time(work: Path) -> None:
    frames = shelf(work, "pictures").frames
    vae = wan_models.build_autoencoder()
    start_from_patches(vae, frames[:, 0])
    codes = encode_clips(vae, frames)[:, :, 0]
    cells = torch.nn.functional.unfold(unit(frames[:, 0]), 8, stride=8).movedim(1, 2).flatten(0, 1)
    wanted = codes.movedim(1, -1).flatten(0, 2)
    inputs = torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
    linear = inputs @ torch.linalg.lstsq(inputs, wanted).solution
    assert (wanted - linear).square().mean() < 0.01 * wanted.var()
    # A still is the same picture five times.
    still = encode_clips(vae, frames[:2].repeat(1, 9, 1, 1, 1))
    assert still.shape[2] == 5
    torch.testing.assert_close(still, still[:, :, :1].expand_as(still), atol=1e-4, rtol=1e-3)


def test_a_latent_is_covered_as_its_frames_are(work: Path) -> None:
    clips, vae = shelf(work, "clips"), wan_models.build_autoencoder()
    assert clips.frames.shape[1] == 9
    found, each = WanShelf(clips, vae), clips.coverage().float()
    assert found.latents.shape[1:] == (16, 5, 8, 12)
    assert torch.equal(found.coverage[:, 0], clips.coverage()[:, 0])
    assert (found.coverage[:, 4] - each[:, 7:].mean(1)).abs().max() <= 1


@torch.no_grad()
def test_one_padding_stands_for_all(work: Path) -> None:
    parts = WanPretraining(TINY, work, "cpu")._model()
    denoiser = parts["transformer"]
    torch.nn.init.normal_(denoiser.proj_out.weight, std=0.1)
    stage = _stage(parts, work)
    states, real = stage._read(["a red cat", "two dogs run on the beach"])
    noisy, times = torch.randn(2, 16, 1, 8, 12), torch.tensor([300.0, 900.0])
    found = stage._predict(noisy, times, states, real)
    whole = torch.nn.functional.pad(states, (0, 0, 0, TOKENS - states.shape[1]))
    sites = text_sites(denoiser, (1, 8, 12))
    words = torch.nn.functional.pad(real, (0, TOKENS - real.shape[1])).float()[:, None]
    with watch(denoiser, sites, words) as tape:
        expected = denoiser(noisy, times, whole).sample
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    # Text is read from the start, not one part in a hundred of it.
    assert min(float(read.mean()) for read in tape.maps().values()) > 0.2


def _stage(parts: dict[str, Any], work: Path) -> WanDenoiserStage:
    vae, tokenizer = wan_models.build_autoencoder(), WanPretraining(TINY, work, "cpu").tokenizer
    start_from_patches(vae, shelf(work, "pictures").frames[:, 0])
    shelves = {name: WanShelf(shelf(work, name), vae) for name in ("lone", "pictures", "clips")}
    diet = Diet(pictures=4, clips=2, clip_share=0.4)
    return WanDenoiserStage(
        (parts["transformer"], parts["text_encoder"], tokenizer), shelves, 1, 40, diet
    )


def test_the_decoder_learns_and_the_code_stays(work: Path) -> None:
    torch.manual_seed(0)
    vae = wan_models.build_autoencoder()
    shelves = {name: shelf(work, name) for name in ("pictures", "clips")}
    stage = WanAutoencoderStage(vae, shelves, 1, 40, 1)
    frames = shelves["clips"].frames
    before = encode_clips(vae, frames)
    first, last = fallen(vae, stage, 10, 2e-3)
    assert last < 0.7 * first
    assert torch.equal(encode_clips(vae, frames), before)


def test_the_denoiser_learns_pictures_clips_and_where_words_belong(work: Path) -> None:
    torch.manual_seed(0)
    parts = WanPretraining(TINY, work, "cpu")._model()
    stage = _stage(parts, work)
    kinds = {kind for step in range(6) for kind in stage(step)}
    assert kinds == {"pictures", "clips", "grounding"}
    before = [value.clone() for value in parts["text_encoder"].parameters()]
    first, last = fallen(torch.nn.ModuleDict(parts), stage, 12, 1e-3)
    assert last < 0.9 * first
    after = parts["text_encoder"].parameters()
    assert not all(map(torch.equal, before, after))


@torch.no_grad()
def test_positions_one_by_one_begin_with_what_patches_know() -> None:
    """Where the four positions of a patch are alike, both networks say the same of them, but for
    how loud they are read and how far apart they stand."""
    torch.manual_seed(0)
    coarse, fine = (wan_models.build_denoiser(patch) for patch in (2, 1))
    fine.load_state_dict(finer(coarse.state_dict(), 16))
    loud, told = torch.randn(1, 16, 1, 1, 1), torch.randn(1, 3, models.TEXT_WIDTH)
    seen = coarse.patch_embedding(loud.expand(-1, -1, -1, 2, 2))
    torch.testing.assert_close(
        2 * (fine.patch_embedding(loud) - fine.patch_embedding.bias[:, None, None, None]),
        seen - coarse.patch_embedding.bias[:, None, None, None],
    )
    time = torch.tensor([500.0])
    patch = coarse(loud.expand(-1, -1, -1, 2, 2), time, told).sample
    fine.patch_embedding.weight.mul_(2)
    alone = fine(loud, time, told).sample
    torch.testing.assert_close(alone, patch.mean((-2, -1), keepdim=True), atol=1e-5, rtol=1e-4)


def test_the_finer_network_begins_where_the_coarse_ended(work: Path) -> None:
    run = WanPretraining(TINY, work, "cpu", lambda line: None)
    coarse, fine = run.coarse()["transformer"], run.denoiser()["transformer"]
    assert (coarse.config.patch_size[1:], fine.config.patch_size[1:]) == ((2, 2), (1, 1))
    known, learned = (module.blocks[0].attn1.to_q.weight.flatten() for module in (coarse, fine))
    fresh = run._model()["transformer"].blocks[0].attn1.to_q.weight.flatten()
    assert (learned - known).norm() < 0.3 * (learned - fresh).norm()


def test_a_folder_is_trained_by_the_recipe_its_card_asks_for(folder: Path, tmp_path: Path) -> None:
    assert recipes_of(str(folder)) == "toybox-wan" and recipes_of(str(tmp_path)) is None
    for method in ("customvideo", "custom_diffusion"):
        found = compose_recipe([("backbone", str(folder)), ("method", method)])
        wanted = load_recipe(f"{method}-toybox-wan")
        assert found == wanted.model_copy(update={"backbone": str(folder)})
    # What it has no recipe for takes its family's.
    assert compose_recipe([("backbone", str(folder)), ("method", "dreambooth")]).method == (
        "dreambooth"
    )


def test_the_toyboxs_judges_judge_it(folder: Path, backbone: Wan, tmp_path: Path) -> None:
    assert draws_toys(backbone.name) and called(str(folder)) == backbone.name
    assert called(str(tmp_path)) == tmp_path.name and called("wan-1.3b") == "wan-1.3b"
    assert not draws_toys("wan-1.3b") and not draws_toys("toyboxes")
    assert finder_for(backbone) is not None
    assert isinstance(encoders_for(backbone).clip, ToyClip)


def test_a_few_steps_of_customization_train(backbone: Wan, tmp_path: Path) -> None:
    reports: list[StepReport] = []
    settings = compose_recipe([("backbone", "toybox-wan")], "customvideo-toybox-wan")
    method = quick_method(**settings.method_options | {"prior_weight": 0.0})
    trainer = Trainer(
        short_run(steps=2), tmp_path, on_step=reports.append, console=Console(quiet=True)
    )
    adapter = trainer.fit(backbone, method, make_cast())
    assert [set(one.parts) for one in reports] == [{"reconstruction", "attention"}] * 2
    assert len(list(adapter.deltas)) == 2 * len(backbone.sites(1, 64, 96))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--edition", "wann"], ("'wann'", "did you mean 'wan'?")),
        (["--edition", "wan", "--set", "views=3"], ("'views'",)),
        (["--edition", "wan", "--set", "clips=none"], ("'clips'", "whole number")),
    ],
)
def test_what_cannot_be_asked_for_is_named(
    given: list[str], named: tuple[str, ...], tmp_path: Path
) -> None:
    result = run_cli("toybox", "pretrain", "--work", tmp_path / "work", *given)
    assert result.exit_code == 2, result.output
    assert all(part in result.stderr for part in named)
    assert not (tmp_path / "work").exists()


def test_it_is_not_exported_over_another_model(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "model_index.json").write_text("{}")
    given = ["toybox", "pretrain", "--edition", "wan", "--work", tmp_path / "w", "--export", other]
    result = run_cli(*given)
    assert result.exit_code == 2 and str(other) in result.stderr
    assert list(contents(other)) == ["model_index.json"]
    is_own = EDITIONS["wan"][2]
    assert is_own(folder) and not is_own(other)
