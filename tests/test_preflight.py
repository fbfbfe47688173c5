"""What is said of a run before it begins, recipes made to fit cards, and memory that runs out."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from customvideo.backbones import blank as blank_module
from customvideo.backbones import folder as folder_module
from customvideo.backbones import sizes
from customvideo.backbones.base import BACKBONES, load_backbone
from customvideo.backbones.blank import blank, without_weights
from customvideo.backbones.sizes import PUBLISHED, missing_bytes, published
from customvideo.config import (
    Recipe,
    SubjectEntry,
    compose_recipe,
    default_recipe,
    load_recipe,
)
from customvideo.errors import BackboneError, ConfigError
from customvideo.methods.base import load_method
from customvideo.runs import TrainPlan, fitting, learning, making, preflight
from customvideo.runs.estimate import Cost, assemble, cost_of_step, encoding_bytes
from customvideo.runs.fitting import CARDS, Sizing, card_bytes, fitted, knobs
from customvideo.runs.ledger import Ledger
from customvideo.runs.memory import enough_memory
from customvideo.runs.preflight import Report, lines, report
from customvideo.training.batch import Batches, ScenePool, WordFinder, Workshop
from customvideo.training.config import TrainerConfig
from customvideo.training.prior import build_prior
from customvideo.training.session import Session, Task, build_accelerator
from tests.cast import make_cast
from tests.surroundings import run_cli, sampled, train, write_pair, write_photos
from tests.test_video import moving_picture
from tests.tiny_wan import build_tiny_wan

COUNTED = {
    "zeroscope": (1.411e9, 25.559e6),
    "wan-1.3b": (1.419e9, 141.558e6),
    "ltx": (1.923e9, 234.881e6),
    "cogvideox-2b": (1.694e9, 221.184e6),
    "hunyuan": (12.821e9, 377.487e6),
    "wan2.2-14b": (14.288e9, 2 * 2097.152e6),
}
"""Numbers of the denoiser, and those that make keys and values of text, as counted elsewhere."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SubjectEntry]:
    folder = tmp_path_factory.mktemp("photos")
    return {
        "tom": SubjectEntry(folder=str(write_photos(folder / "tom", 1)), category="cat"),
        "rex": SubjectEntry(folder=str(write_photos(folder / "rex", 2)), category="dog"),
    }


def recipe_on(backbone: str, photos: dict[str, SubjectEntry], **keys: Any) -> Recipe:
    recipe = compose_recipe([("backbone", backbone), *keys.items()])
    return recipe.model_copy(update={"subjects": photos})


@pytest.fixture(scope="module")
def wan(photos: dict[str, SubjectEntry]) -> Sizing:
    """Wan 1.3B on a GPU that need not be there."""
    return Sizing(assemble(recipe_on("wan-1.3b", photos, batch_size=2, rank=0), "cuda"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection, and a cache of the hub that is empty."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(sizes, "cached", lambda _hub: None)


# Models without their weights


@pytest.mark.parametrize("name", COUNTED)
def test_a_published_model_is_counted_without_being_fetched(name: str, offline: None) -> None:
    model = blank(PUBLISHED[name], "bf16")
    denoiser, key_values = COUNTED[name]
    numbers = model.numbers()
    assert numbers.get("unet", numbers.get("transformer")) == pytest.approx(denoiser, rel=1e-3)
    layers: list[Any] = [model.backbone.layer(p) for p in model.backbone.layers("text_kv")]
    assert sum(layer.weight.numel() for layer in layers) == pytest.approx(key_values, rel=1e-3)


def test_everything_published_has_a_name_a_card_and_a_family() -> None:
    assert set(PUBLISHED) == set(BACKBONES) - {"toybox"}
    known = folder_module._HUB_CARDS
    for model in PUBLISHED.values():
        if model.hub in known:
            assert model.card == known[model.hub]
    assert published("wan-1.3b") is published("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    assert published("toybox") is None and published("nobody/nothing") is None


def test_a_blank_model_is_the_loaded_one_but_for_its_numbers(tmp_path: Path) -> None:
    folder = build_tiny_wan(tmp_path / "wan")
    model, real = blank(folder, "fp32"), load_backbone(folder, "cpu")
    with model.mode:
        assert model.backbone.sites(1, 64, 96) == real.sites(1, 64, 96)
        assert model.backbone.layers("text_kv") == real.layers("text_kv")
    wanted = {name: tuple(value.shape) for name, value in real.denoiser.named_parameters()}
    found = model.networks["transformer"].named_parameters()
    assert {name: tuple(value.shape) for name, value in found} == wanted
    # And nothing is left behind: networks are read again.
    assert load_backbone(folder, "cpu").fingerprint == real.fingerprint


def test_random_numbers_are_the_same_each_time(tmp_path: Path) -> None:
    folder = build_tiny_wan(tmp_path / "wan")
    before = torch.get_rng_state()
    prints = set()
    for _ in range(2):
        with without_weights("cpu"):
            prints.add(load_backbone(folder, "cpu").fingerprint)
        torch.rand(1)
    assert len(prints) == 1 and prints != {load_backbone(folder, "cpu").fingerprint}
    torch.set_rng_state(before)
    with without_weights("cpu"):
        load_backbone(folder, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_step_keeps_and_does_is_counted_alike_without_numbers(tmp_path: Path) -> None:
    folder = build_tiny_wan(tmp_path / "wan")
    model, real = blank(folder, "fp32"), load_backbone(folder, "cpu")

    def step(backbone: Any) -> Ledger:
        ledger = Ledger()
        latents = torch.ones(2, *backbone.latent_shape(1, 64, 96))
        with ledger:
            text = backbone.encode_prompt(["a cat", "a dog on the beach"])
            states = replace(text, states=text.states.detach().requires_grad_())
            backbone.predict(latents, torch.full((2,), 500.0), states).square().mean().backward()
        return ledger

    with model.mode:
        counted = step(model.backbone)
    measured = step(real)
    assert counted.flops == measured.flops > 0
    assert counted.peak == pytest.approx(measured.peak, rel=0.02)


def test_a_ledger_counts_what_is_alive_and_no_view() -> None:
    given = torch.zeros(1000)
    with Ledger() as ledger:
        given.view(10, 100).t()
        assert ledger.peak == 0
        first = given + 1
        second = first + 1
        del first
        third = second + 1
    assert ledger.live == 8000 and ledger.peak == 8000 and third is not second


def test_a_model_of_which_nothing_is_known_is_not_guessed(
    photos: dict[str, SubjectEntry], offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("customvideo.runs.estimate.cached", lambda _hub: None)
    with pytest.raises(BackboneError, match="not known before it is fetched"):
        assemble(recipe_on("nobody/nothing", photos), "cpu")


def test_a_network_that_cannot_be_counted_says_so(
    monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("a size of None")

    monkeypatch.setattr(blank_module, "load_backbone", fail)
    with pytest.raises(BackboneError, match=r"cannot be counted \(TypeError: a size of None\)"):
        blank(PUBLISHED["ltx"], "bf16")


# The report


def test_the_toybox_is_told_as_it_is(photos: dict[str, SubjectEntry], tmp_path: Path) -> None:
    """Numbers that train exactly, and memory and work of a step, against a real one."""
    recipe = recipe_on("toybox", photos)
    case = assemble(recipe, "cpu")
    backbone = load_backbone("toybox", "cpu")
    method = load_method(recipe.method, recipe.method_options)
    config = TrainerConfig(**{name: getattr(recipe, name) for name in TrainerConfig.model_fields})
    cast = make_cast()
    adapter = method.trainable(backbone, cast)
    assert case.trained == sum(parameter.numel() for parameter in adapter.parameters())
    assert case.sites == method.watches(backbone, 1, *backbone.size)
    plan = method.prior(backbone, cast)
    assert plan is not None
    pool = ScenePool(Workshop(backbone, method, cast, backbone.size, 0), 8)
    prior = build_prior(backbone, plan, backbone.size, cache=tmp_path)
    batches = Batches(pool, WordFinder(backbone, adapter), prior, config)
    accelerator = build_accelerator(config, backbone, None)
    session = Session(Task(backbone, method, adapter, case.sites), batches, config, accelerator)
    with adapter.attach(backbone), Ledger() as ledger:
        session.train_step()
    cost = cost_of_step(case, case.rows, checkpointing=False)
    assert cost.activations + 4 * case.trained == pytest.approx(ledger.peak, rel=0.15)
    assert cost.flops == pytest.approx(ledger.flops, rel=0.1)


def test_recomputing_saves_memory_and_costs_work(photos: dict[str, SubjectEntry]) -> None:
    case = assemble(recipe_on("toybox", photos), "cpu")
    kept = cost_of_step(case, 4, checkpointing=False)
    again = cost_of_step(case, 4, checkpointing=True)
    assert again.activations < 0.8 * kept.activations
    assert again.flops > 1.15 * kept.flops and again.forward == kept.forward
    assert case.adapter is not None
    assert all(parameter.grad is None for parameter in case.adapter.parameters())
    assert encoding_bytes(case) > 0


def test_a_dry_run_fetches_and_writes_nothing(
    tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = Cost(4, 10**9, 10**13, 10**12)
    monkeypatch.setattr("customvideo.runs.fitting.cost_of_step", lambda *_, **__: cost)
    pair, out = write_pair(tmp_path / "photos"), tmp_path / "run"
    result = run_cli(
        "train", *pair, "--out", out, "--backbone", "zeroscope", "--device", "cuda", "--dry-run"
    )
    assert result.exit_code == 0, result.output
    assert not out.exists()
    for text in (
        "licence cc-by-nc-4.0",
        "excludes commercial use",
        "to be fetched: unet, vae, text_encoder, about 3.4 GB",
        "Trained: 25.6 M numbers, 2,048 in words",
        "Memory on the GPU: about",
        "--fit 24: as it is",
    ):
        assert text in result.stdout, result.stdout


def test_a_dry_run_as_json_is_json_alone(tmp_path: Path) -> None:
    pair = write_pair(tmp_path / "photos")
    result = run_cli("train", *pair, "--out", tmp_path / "run", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["backbone"]["name"] == "toybox" and found["backbone"]["download"] == {}
    assert found["trained"]["words"] + found["trained"]["deltas"] == found["trained"]["all"]
    adapter = 4 * found["trained"]["all"]
    assert found["disk"]["adapter"] == adapter and found["disk"]["checkpoints"] == 9 * adapter
    assert found["disk"]["prior"] == 0
    assert found["work"]["seconds"] > 0 and not found["cards"]


def test_a_dry_run_says_that_clips_are_not_counted(tmp_path: Path, tiny_zeroscope: Path) -> None:
    pair = write_pair(tmp_path)
    asked = ["train", *pair, "--backbone", tiny_zeroscope, "--out", tmp_path / "run", "--dry-run"]
    assert "Not counted" not in run_cli(*asked).output
    moving_picture(6, 64, 96).save(tmp_path / "tom" / "run.mp4")
    told = run_cli(*asked)
    assert told.exit_code == 0 and "25% of the rows are clips" in " ".join(told.output.split())
    without = run_cli(*asked, "--set", "clip_share=0")
    assert "Not counted" not in without.output


def test_a_dry_run_finds_what_training_would(tmp_path: Path) -> None:
    pair = write_pair(tmp_path / "photos")
    result = run_cli("train", *pair, "--out", tmp_path / "run", "--dry-run", "--set", "stepss=3")
    assert result.exit_code == 2 and "did you mean 'steps'" in result.stderr
    result = run_cli(
        "train", "--out", tmp_path / "run", "--dry-run", "--subject", "tom:cat=nowhere"
    )
    assert result.exit_code == 2 and "nowhere" in result.stderr


def test_a_method_that_trains_nothing_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    pair = write_pair(tmp_path / "photos")
    subjects = [text for text in pair if text != "--subject"]
    plan = TrainPlan(tmp_path / "run", subjects, choices={"method": "vace", "backbone": "toybox"})
    assert preflight(plan, said.append) is None
    assert said[-1].startswith("Nothing is trained: ")


def test_weights_that_are_here_are_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = dict.fromkeys(("transformer", "transformer_2", "vae", "text_encoder"), 10)
    monkeypatch.setattr(sizes, "cached", lambda _hub: None)
    large, model = PUBLISHED["wan2.2-14b"], PUBLISHED["wan-1.3b"]
    assert missing_bytes(large, numbers) == {**dict.fromkeys(numbers, 40), "text_encoder": 20}
    for part in ("vae", "transformer"):
        (tmp_path / part).mkdir()
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").touch()
    monkeypatch.setattr(sizes, "cached", lambda _hub: tmp_path)
    assert missing_bytes(model, numbers) == {"transformer": 40, "text_encoder": 40}


def test_looking_into_the_cache_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *where: asked.append(where))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: asked.append(where))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert sizes.cached("somebody/model") is None
    place = tmp_path / "models--somebody--model"
    folder = place / "snapshots" / "abc123"
    folder.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc123")
    assert sizes.cached("somebody/model") is None, "nothing whole is there"
    (folder / "model_index.json").write_text("{}")
    assert sizes.cached("somebody/model") == folder
    assert not asked


# Fitting a card


def test_more_and_more_is_turned_until_it_fits(wan: Sizing) -> None:
    choices = list(wan.choices())
    assert choices[0].changes == {} and "batch_size" in choices[-1].changes
    names = [next(reversed(one.changes)) for one in choices[1:]]
    assert names[0] in ("gradient_checkpointing", "method_options.prior_rows")
    assert names[-3:] == ["method_options.rank", "method_options.rank", "canvas"]
    host = next(one for one in choices if "text_encoder" in one.changes)
    assert "text_encoder" not in host.need.weights and "transformer" in host.need.weights
    # UMT5 is most of Wan 1.3B: without it full matrices train on ten gigabytes.
    assert host.changes["method_options.word_space"] == "output"
    assert host.recipe.method_options["rank"] == 0 and host.need.total < 10 << 30
    needs = [one.need.total for one in choices]
    assert needs == sorted(needs, reverse=True)
    # Rows of the class prior come along, so that a step stays the same step.
    smaller = next(one for one in choices if "batch_size" in one.changes)
    assert smaller.recipe.batch_size * smaller.recipe.accumulation == 2


def test_a_card_gets_the_fewest_changes_that_fit(wan: Sizing) -> None:
    found: Report = report(wan)
    fits = [card for card in found.cards if card["fits"]]
    assert [card["card"] for card in found.cards] == list(CARDS)
    assert len(fits) == len(CARDS)
    for card in fits:
        assert card["needs"] <= card_bytes(card["card"], "cuda")
    changes = [len(card["changes"]) for card in fits]
    assert changes == sorted(changes, reverse=True) and changes[-1] == 0
    text = "\n".join(lines(found))
    assert "--fit 12: text_encoder=host, method_options.word_space=output" in text
    assert "30x52" in text


@pytest.mark.parametrize("installed", [True, False])
def test_eight_bits_are_counted_and_tried(
    wan: Sizing, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr("customvideo.runs.fitting.find_spec", lambda _: installed or None)
    sizing = Sizing(wan.case, wan._costs, _encoding=wan._encoding)
    plain, *_ = choices = list(sizing.choices())
    keys = [key for one in choices for key in one.changes]
    assert ("optimizer" in keys) == installed
    for small in [one for one in choices if "optimizer" in one.changes][:1]:
        assert small.need.trained == plain.need.trained // 2
    less = next(one for one in choices if "base" in one.changes)
    assert less.changes["base"] == ("int8" if installed else "fp8")
    assert 0.5 < less.need.weights["text_encoder"] / plain.need.weights["text_encoder"] < 0.65
    assert 0.5 < less.need.weights["transformer"] / plain.need.weights["transformer"] < 0.65
    assert less.need.weights["vae"] == plain.need.weights["vae"]


@pytest.mark.parametrize(("method", "tried"), [("customvideo", True), ("dreambooth", False)])
def test_a_base_whose_own_weights_train_stays_whole(
    photos: dict[str, SubjectEntry], tiny_zeroscope: Path, method: str, tried: bool
) -> None:
    recipe = recipe_on(str(tiny_zeroscope), photos, method=method, canvas=[64, 96])
    case = assemble(recipe, "cuda")
    assert any("base" in lever for lever in fitting._levers(case)) == tried
    assert case.adapter is not None
    # Deltas without numbers can be put on, too, to be counted.
    with case.blank.mode, case.adapter.attach(case.backbone):
        pass


def test_a_card_that_nothing_fits_is_refused_with_the_one_that_does(
    photos: dict[str, SubjectEntry], monkeypatch: pytest.MonkeyPatch, wan: Sizing
) -> None:
    monkeypatch.setattr("customvideo.runs.fitting.assemble", lambda *_: wan.case)
    monkeypatch.setattr("customvideo.runs.fitting.Sizing", lambda _: wan)
    with monkeypatch.context() as patch:
        sizes = {8: 1 << 30, 12: 2 << 30}
        patch.setattr(
            "customvideo.runs.fitting.card_bytes",
            lambda fit, device: sizes.get(fit) or card_bytes(fit, device),
        )
        with pytest.raises(ConfigError, match=r"does not fit 1.0 GB: .* for weights") as caught:
            fitted(recipe_on("wan-1.3b", photos, fit=8), "cpu")
    assert "the smallest that does is fit=16" in str(caught.value)
    said: list[str] = []
    recipe = fitted(recipe_on("wan-1.3b", photos, batch_size=2, rank=0, fit=48), "cpu", said.append)
    assert recipe.fit is None and "nothing changed" in said[0]


def test_a_run_that_is_made_to_fit_says_and_keeps_what_was_turned(
    tiny_zeroscope: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = write_pair(tmp_path / "photos")
    # A card on which only recomputing helps.
    entries = {
        name: SubjectEntry(folder=str(tmp_path / "photos" / name), category=kind)
        for name, kind in (("tom", "cat"), ("rex", "dog"))
    }
    keys = {"canvas": [64, 96], "prior_weight": 0.0, "batch_size": 1, "pool": 2}
    sizing = Sizing(assemble(recipe_on(str(tiny_zeroscope), entries, **keys), "cpu"))
    first, second, *_ = sizing.choices()
    assert second.need.total < first.need.total
    monkeypatch.setattr("customvideo.runs.fitting.card_bytes", lambda *_: second.need.total)
    result = train(tmp_path / "run", pair, tiny_zeroscope, "--fit", "auto")
    assert result.exit_code == 0, result.output
    assert "gradient_checkpointing=True changed" in result.stdout
    kept = load_recipe(tmp_path / "run" / "recipe.toml")
    assert kept.gradient_checkpointing and kept.fit is None


@pytest.mark.parametrize("fit", ["7", "large"])
def test_a_card_that_is_none_is_refused(fit: str, tmp_path: Path) -> None:
    pair = write_pair(tmp_path / "photos")
    result = run_cli("train", *pair, "--out", tmp_path / "run", "--fit", fit, "--dry-run")
    assert result.exit_code == 2 and "'fit' cannot be" in result.stderr


def test_customize_has_a_backbone_and_takes_no_card(tiny_zeroscope: Path) -> None:
    with pytest.raises(ConfigError, match="belongs to `customvideo train`"):
        learning.customize(load_backbone(tiny_zeroscope, "cpu"), make_cast(), fit=24)


# Memory that runs out

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate")


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(("error", "whose"), [(GPU, "GPU"), (CPU, "computer")])
def test_training_that_runs_out_of_memory_says_what_to_turn(
    error: Exception,
    whose: str,
    tiny_zeroscope: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning.Trainer, "fit", raising(error))
    pair = write_pair(tmp_path / "photos")
    result = train(tmp_path / "run", pair, tiny_zeroscope, "--set", "batch_size=2")
    assert result.exit_code == 2
    said = result.stderr.splitlines()[-1]
    assert f"The {whose} ran out of memory while training on 'tiny-zeroscope'" in said
    order = ["gradient_checkpointing=true", "batch_size=1 with accumulation=2"]
    order += ["text_encoder=host with word_space=output", "rank=16", "canvas"]
    assert sorted(order, key=said.index) == order
    assert not (tmp_path / "run").exists()


def test_what_is_turned_already_is_not_named_again() -> None:
    recipe = default_recipe(backbone="zeroscope")
    update = {"gradient_checkpointing": True, "batch_size": 1, "text_encoder": "host"}
    turned = recipe.model_copy(update=update)
    assert knobs(turned) == ["rank=16", "a smaller canvas=[height, width]"]
    assert knobs(recipe, checkpoints=False)[0].startswith("batch_size=1")


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError()])
def test_generating_that_runs_out_of_memory_says_what_to_turn(
    error: BaseException, tiny_zeroscope: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making.generation, "generate", raising(error))
    file = tmp_path / "video.mp4"
    result = run_cli("generate", "a cat", "--out", file, "--backbone", tiny_zeroscope, *sampled())
    assert result.exit_code == 2
    assert "try fewer --frames, and if that is not enough a smaller --size." in result.stderr
    assert not file.exists()


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory("training", ["rank=16"]):
        raise RuntimeError("shapes do not match")
    with enough_memory("training", ["rank=16"]):
        value: Tensor = torch.zeros(1)
    assert value.numel() == 1
