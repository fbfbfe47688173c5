"""`customvideo export` and `import` from the command line, used rightly and wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone
from tests.exports.conftest import learned
from tests.surroundings import contents, run_cli, sampled
from tests.test_wrong_input import complaint, mentions

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def adapter(unet3d: Backbone, tmp_path: Path) -> Path:
    file = tmp_path / "run" / "adapter.safetensors"
    learned(unet3d).save(file)
    return file


def test_export_writes_a_folder_beside_the_adapter(adapter: Path, tiny_zeroscope: Path) -> None:
    done = run_cli(
        *("export", adapter, "--to", "diffusers", "--backbone", tiny_zeroscope, "--verify"),
        *("--dtype", "fp16"),
    )
    assert done.exit_code == 0, done.output
    out = adapter.parent / "export-diffusers"
    assert {"README.md", "load.py", "pytorch_custom_diffusion_weights.safetensors"} <= {
        path.name for path in out.iterdir()
    }
    assert "Every one of" in done.stdout and "A short clip by diffusers' own loader" in done.stdout
    assert f"Wrote '{out}'" in done.stdout
    weights = load_file(out / "pytorch_custom_diffusion_weights.safetensors").values()
    assert {tensor.dtype for tensor in weights} == {torch.float16}


def test_export_says_what_a_rank_loses(wan: Backbone, wan_folder: Path, tmp_path: Path) -> None:
    learned(wan).save(tmp_path / "a.safetensors")
    done = run_cli(
        *("export", tmp_path / "a.safetensors", "--to", "comfyui", "--rank", "4"),
        *("--backbone", wan_folder, "--out", tmp_path / "out"),
    )
    assert done.exit_code == 0, done.output
    assert "blocks.0.attn2.to_k: " in done.stdout and "of the energy kept" in done.stdout
    assert "Lower rank loses" in done.stdout


def test_what_was_exported_is_imported_and_drawn(
    adapter: Path, tiny_zeroscope: Path, tmp_path: Path
) -> None:
    there = ("--backbone", tiny_zeroscope)
    out = tmp_path / "out"
    run_cli("export", adapter, "--to", "diffusers", *there, "--out", out)
    file = out / "pytorch_custom_diffusion_weights.safetensors"
    done = run_cli("import", file, *there, "--out", tmp_path / "again.safetensors")
    assert done.exit_code == 0, done.output
    assert "layers of" in done.stdout and "no words" in done.stdout
    again = Adapter.load(tmp_path / "again.safetensors")
    assert set(again.deltas) == set(Adapter.load(adapter).deltas)
    before = contents(tmp_path)
    said = complaint(run_cli("import", file, *there, "--out", tmp_path / "again.safetensors"))
    mentions(said, tmp_path / "again.safetensors", "already")
    said = complaint(run_cli("import", file, *there, "--out", tmp_path / "again.txt"))
    mentions(said, "end its name with .safetensors")
    assert contents(tmp_path) == before
    drawn = run_cli(
        *("generate", "a cat", "--adapter", tmp_path / "again.safetensors", *there),
        *("--out", tmp_path / "cat.png", *sampled()),
    )
    assert drawn.exit_code == 0, drawn.output


def test_an_unknown_target(adapter: Path, tiny_zeroscope: Path) -> None:
    said = complaint(run_cli("export", adapter, "--to", "comfy", "--backbone", tiny_zeroscope))
    mentions(said, "'comfy'", "did you mean 'comfyui'?")


def test_an_unknown_type(adapter: Path, tiny_zeroscope: Path) -> None:
    wrong = ("--to", "diffusers", "--dtype", "fp15", "--backbone", tiny_zeroscope)
    mentions(complaint(run_cli("export", adapter, *wrong)), "'fp15'", "did you mean")


def test_a_target_that_cannot_carry_it(adapter: Path, tiny_zeroscope: Path) -> None:
    before = contents(adapter.parent)
    said = complaint(run_cli("export", adapter, "--to", "kohya", "--backbone", tiny_zeroscope))
    mentions(said, "no program reads LoRA files", "choose diffusers")
    assert contents(adapter.parent) == before


def test_an_adapter_of_another_architecture(adapter: Path, wan_folder: Path) -> None:
    before = contents(adapter.parent)
    said = complaint(run_cli("export", adapter, "--to", "comfyui", "--backbone", wan_folder))
    mentions(said, "made for the backbone", "(wan)")
    assert contents(adapter.parent) == before


def test_a_missing_adapter_and_one_that_is_none(tiny_zeroscope: Path, tmp_path: Path) -> None:
    wanted = ("--to", "diffusers", "--backbone", tiny_zeroscope)
    missing = tmp_path / "none.safetensors"
    mentions(complaint(run_cli("export", missing, *wanted)), missing, "no adapter file")
    save_file({"a": torch.zeros(1)}, missing)
    mentions(complaint(run_cli("export", missing, *wanted)), missing, "not a customvideo adapter")


def test_a_backbone_that_is_nowhere(adapter: Path, tmp_path: Path) -> None:
    said = complaint(run_cli("export", adapter, "--to", "diffusers"))
    mentions(said, adapter, "--backbone")
    nowhere = tmp_path / "nowhere"
    said = complaint(run_cli("export", adapter, "--to", "diffusers", "--backbone", nowhere))
    mentions(said, nowhere)


@pytest.mark.parametrize("place", ["full", "file", "below"])
def test_a_place_that_cannot_be_written(
    place: str, adapter: Path, tiny_zeroscope: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    out = tmp_path / {"below": "file/out"}.get(place, place)
    before = contents(tmp_path)
    wanted = ("--to", "diffusers", "--backbone", tiny_zeroscope, "--out", out)
    named = out.parent if place == "below" else out
    mentions(complaint(run_cli("export", adapter, *wanted)), named)
    assert contents(tmp_path) == before


def test_an_import_that_is_not_understood(wan_folder: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "other.safetensors", tmp_path / "a.safetensors"
    save_file({"transformer.blocks.0.moe.gate.lora_A.weight": torch.zeros(1, 2)}, file)
    said = complaint(run_cli("import", file, "--backbone", wan_folder, "--out", out))
    mentions(said, file, "1 of its 1 tensors", "moe.gate")
    assert not out.exists()
    missing = tmp_path / "none.safetensors"
    said = complaint(run_cli("import", missing, "--backbone", wan_folder, "--out", out))
    mentions(said, missing, "give a .safetensors file")
    said = complaint(run_cli("import", tmp_path, "--backbone", wan_folder, "--out", out))
    mentions(said, tmp_path, "is a folder")


def test_an_adapter_is_not_imported(adapter: Path, tiny_zeroscope: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    said = complaint(run_cli("import", adapter, "--backbone", tiny_zeroscope, "--out", out))
    mentions(said, adapter, "an adapter of customvideo already")
    assert not out.exists()


def test_a_merged_folder_says_how_to_draw_and_not_where_it_was_made(
    adapter: Path, tiny_zeroscope: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    wanted = ("--to", "merged-folder", "--backbone", tiny_zeroscope, "--out", out)
    assert run_cli("export", adapter, *wanted).exit_code == 0
    texts = [file.read_text() for file in out.glob("**/*.json")]
    assert texts and not any(str(tiny_zeroscope) in text for text in texts)
    page = (out / "README.md").read_text()
    assert all(f"- {key}: " in page for key in ("frames", "height", "width", "guidance"))
    word = Adapter.load(adapter).words[0]
    drawn = run_cli(
        *("generate", f"a {word.word} {word.category}", "--backbone", out),
        *("--out", tmp_path / "one.png", *sampled()),
    )
    assert drawn.exit_code == 0 and "Nobody learned" not in drawn.output
