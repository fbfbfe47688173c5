"""Files that earlier versions wrote: each still loads, and one of a later version says so.

Where they come from is told in `tests/golden/README.md`.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.deltas import BottleneckDelta, LowRankDelta, WeightDelta
from customvideo.adapters.header import FORMAT_VERSION
from customvideo.backbones.base import Backbone, load_backbone
from customvideo.benchmark.grid import RESULTS_VERSION
from customvideo.benchmark.rows import read_rows
from customvideo.benchmark.store import Store
from customvideo.config import load_recipe
from customvideo.errors import AdapterError, BenchmarkError, ConfigError, StorageError
from customvideo.training.checkpoint import best_checkpoint, newest_valid
from customvideo.training.prior import PriorRequest, prior_latents
from customvideo.training.progress import read_losses
from customvideo.training.trainer import Trainer
from tests import tiny
from tests.cast import make_cast, quick_method, short_run

GOLDEN = Path(__file__).parent / "golden"
LEVELS = {
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
}
"""What the golden files' denoiser differs in from the tests' tiny one."""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tiny, "UNET_CONFIG", tiny.UNET_CONFIG | LEVELS)
        return load_backbone(tiny.build_tiny_zeroscope(tmp_path_factory.mktemp("m")), "cpu")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_adapter_of_every_format(version: int, backbone: Backbone, tmp_path: Path) -> None:
    path = GOLDEN / f"adapter-{version}.safetensors"
    adapter = Adapter.load(path)
    assert adapter.header.format_version == version
    assert [word.word for word in adapter.words] == ["<tom>", "<rex>"]
    tensors = load_file(path)
    assert torch.equal(adapter.tokens.value, tensors["words"])
    assert len(adapter.deltas) == 8 and all(
        delta.shape == delta.shape_in(backbone, where) for where, delta in adapter.deltas.items()
    )
    adapter.save(tmp_path / "again.safetensors")
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_delta_and_extras(version: int) -> None:
    adapter = Adapter.load(GOLDEN / f"adapter-{version}-kinds.safetensors")
    kinds = {type(delta) for delta in adapter.deltas.values()}
    assert kinds == {BottleneckDelta, LowRankDelta, WeightDelta}
    assert torch.equal(adapter.extras["panel"], torch.arange(6.0).reshape(2, 3))


def test_gates_came_with_format_3() -> None:
    assert Adapter.load(GOLDEN / "adapter-3-gated.safetensors").header.gate == "phrase"


def test_an_adapter_of_a_later_format_says_so(tmp_path: Path) -> None:
    path = tmp_path / "later.safetensors"
    with safetensors.safe_open(GOLDEN / "adapter-3.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["customvideo_adapter"])
    header |= {"format_version": FORMAT_VERSION + 1, "unheard_of": True}
    save_file({"x": torch.zeros(1)}, path, {"customvideo_adapter": json.dumps(header)})
    with pytest.raises(AdapterError, match=r"made by a newer customvideo.*; update") as error:
        Adapter.load(path)
    assert str(path) in str(error.value)


def test_a_checkpoint_is_whole_and_gone_on_with(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that it does not know had their defaults."""
    shutil.copytree(GOLDEN / "checkpoints", tmp_path / "checkpoints")
    shutil.copy(GOLDEN / "losses.jsonl", tmp_path)
    found, best = newest_valid(tmp_path / "checkpoints"), best_checkpoint(tmp_path / "checkpoints")
    assert found.newest is not None and found.newest.step == 2 and not found.broken
    assert best is not None and best[0] == found.newest
    # The very weights may come out differently with another torch; that is not asked here.
    state = found.newest.state["identity"]
    monkeypatch.setattr(backbone, "fingerprint", state["backbone"]["backbone weights"])
    monkeypatch.setattr(backbone, "name", state["backbone"]["backbone"])
    config = short_run(steps=3, batch_size=1, pool=2, held_out=1)
    trainer = Trainer(config, tmp_path, console=Console(quiet=True))
    trainer.fit(backbone, quick_method(), make_cast(), resume=True)
    assert [line["step"] for line in read_losses(tmp_path / "losses.jsonl")] == [1, 2, 3]


def test_prior_samples_are_found_and_not_drawn_again(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = PriorRequest("a cat", frames=1, height=16, width=24, steps=1, guidance=1.0)
    prior_latents(backbone, request, 1, cache=tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    shutil.copy(GOLDEN / "prior.safetensors", file)
    monkeypatch.setattr("customvideo.training.prior._sample", None)
    found = prior_latents(backbone, request, 1, cache=tmp_path)
    assert torch.equal(found, load_file(GOLDEN / "prior.safetensors")["latents"][:1])


@pytest.mark.parametrize("commit", ["8539192", "210169a", "7769584"])
def test_recipes(commit: str) -> None:
    path = GOLDEN / f"recipe-{commit}.toml"
    told, recipe = tomllib.loads(path.read_text("utf-8")), load_recipe(path)
    for key in ("method", "backbone", "steps", "learning_rate", "pool"):
        assert getattr(recipe, key) == told[key]


@pytest.mark.parametrize("commit", ["718486f", "6d813d4"])
def test_tables_of_rows(commit: str) -> None:
    """A score that was not known yet is one that was not measured."""
    rows = read_rows(GOLDEN / f"rows-{commit}.csv")
    assert [(row.subject, row.clip_t, row.seams) for row in rows] == [
        ("rex", 0.125, None),
        ("tom", 0.125, None),
    ]


def test_a_table_with_an_unknown_column_is_of_a_later_version(tmp_path: Path) -> None:
    text = (GOLDEN / "rows-6d813d4.csv").read_text().splitlines()
    (tmp_path / "rows.csv").write_text("\n".join([f"{text[0]},telepathy", f"{text[1]},1"]))
    with pytest.raises(StorageError, match=r"'telepathy' .* made by a newer customvideo"):
        read_rows(tmp_path / "rows.csv")


def test_a_benchmarks_results() -> None:
    store = Store(GOLDEN / "store")
    store.require()
    found = {job.method: (job, folder) for job, folder in store.found()}
    assert found.keys() == {"base", "customvideo"}
    for job, folder in found.values():
        assert store.folder(job).path == folder.path, "found again by what it is"
        scored = folder.scored
        assert scored is not None and set(job.samples) <= set(scored.samples)
        assert {row.subject for row in scored.rows} == set(job.subjects)
    assert len(read_rows(GOLDEN / "store" / "rows.csv")) == 4


@pytest.mark.parametrize(
    ("version", "said"),
    [(RESULTS_VERSION + 1, "made by a newer customvideo"), (0, "this program makes version")],
)
def test_results_of_another_version_are_refused(version: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps({"version": version}))
    with pytest.raises(BenchmarkError, match=said):
        Store(tmp_path).require()


def test_a_recipe_of_a_later_version_names_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("telepathy = true\nsteps = 1\n")
    with pytest.raises(ConfigError, match="telepathy"):
        load_recipe(tmp_path / "recipe.toml")
