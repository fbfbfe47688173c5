"""Finding and loading a backbone, and every way in which that can fail."""

from __future__ import annotations

import json
import logging
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from customvideo import tables
from customvideo.backbones import folder as folders
from customvideo.backbones import unet3d
from customvideo.backbones.base import _HUBS, BACKBONES, family_of, load_backbone
from customvideo.backbones.folder import fingerprint
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.errors import BackboneError
from tests.tiny import build_tiny_zeroscope


@pytest.fixture
def folder(tiny_zeroscope: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return shutil.copytree(tiny_zeroscope, tmp_path / "broken")


def test_a_folder_is_loaded_and_named_after_itself(tiny_zeroscope: Path) -> None:
    backbone = load_backbone(tiny_zeroscope, device="cpu")
    assert (backbone.name, backbone.family) == ("tiny-zeroscope", "unet3d")
    assert (backbone.size, backbone.fps) == ((64, 96), 8.0)
    assert backbone.device.type == "cpu" and backbone.dtype == torch.float32
    assert backbone.known_words is None and backbone.known_nouns == frozenset()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zeroscop", "did you mean 'zeroscope'"),
        ("nothing-like-it", "modelscope, toybox, wan-1.3b, .*zeroscope"),
        ("./no/such/folder", "No backbone folder './no/such/folder'"),
        ("~/nowhere", "No backbone folder"),
        ("a/b/c", "No backbone folder"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(name: str, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        load_backbone(name)


def test_the_hub_client_is_quiet_when_our_own_words_follow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(name: str) -> str:
        logging.getLogger("diffusers.pipelines.pipeline_utils").warning("Couldn't connect")
        raise ConnectionError(f"no way to {name}")

    monkeypatch.setattr(folders.DiffusionPipeline, "download", refuse)
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    with pytest.raises(BackboneError):
        load_backbone("some/model")
    assert not caplog.records


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"x")
    with pytest.raises(BackboneError, match=r"model\.ckpt.*folder"):
        load_backbone(tmp_path / "model.ckpt")


def test_the_hub_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> str:
        raise ConnectionError(f"no way to {name}")

    monkeypatch.setattr(folders.DiffusionPipeline, "download", refuse)
    with pytest.raises(BackboneError, match=r"'some/model'.*the connection, or"):
        load_backbone("some/model")


@pytest.mark.parametrize("name", ["zeroscope", "cerspense/zeroscope_v2_576w"])
def test_zeroscope_knows_its_size_and_licence(
    tiny_zeroscope: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    asked: list[str] = []
    for module in (folders, unet3d):
        monkeypatch.setattr(module, "fetch", lambda hub: asked.append(hub) or tiny_zeroscope)
    backbone = load_backbone(name, device="cpu")
    assert set(asked) == {"cerspense/zeroscope_v2_576w"} and backbone.name == asked[0]
    assert (backbone.frames, backbone.size) == (24, (320, 576))
    (record,) = [record for record in caplog.records if record.name.startswith("customvideo")]
    assert record.levelno == logging.WARNING
    assert "cc-by-nc-4.0, which excludes commercial use" in record.getMessage()


def test_a_free_licence_is_no_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# A model\n")
    with caplog.at_level(logging.INFO, logger="customvideo"):
        assert load_backbone(folder, device="cpu").licence == "apache-2.0"
    (record,) = [record for record in caplog.records if record.name.startswith("customvideo")]
    assert record.levelno == logging.INFO and "apache-2.0" in record.getMessage()


def test_a_folder_can_carry_its_card(folder: Path) -> None:
    card = {"name": "mini", "frames": 5, "size": [32, 40], "fps": 4, "licence": "mit"}
    (folder / "customvideo.json").write_text(json.dumps(card | {"known_words": ["a", "cat"]}))
    (folder / "nouns.json").write_text('["cat", "dog"]')
    backbone = load_backbone(folder, device="cpu")
    assert (backbone.name, backbone.frames, backbone.size) == ("mini", 5, (32, 40))
    assert (backbone.fps, backbone.licence) == (4.0, "mit")
    assert backbone.known_nouns == {"cat", "dog"}
    assert backbone.known_words == {"a", "cat"}


@pytest.mark.parametrize(
    ("piece", "meaning"),
    [
        ("model_index.json", "list of parts"),
        ("tokenizer/tokenizer_config.json", "tokenizer"),
        ("text_encoder/config.json", "text encoder"),
        ("vae/config.json", "autoencoder"),
        ("unet/config.json", "denoiser"),
        ("scheduler/scheduler_config.json", "noise schedule"),
    ],
)
def test_a_missing_piece_is_named(folder: Path, piece: str, meaning: str) -> None:
    (folder / piece).unlink()
    with pytest.raises(BackboneError, match=rf"lacks the {meaning} \({piece}\)"):
        load_backbone(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_or_damaged_weights_are_one_sentence(folder: Path, part: str) -> None:
    (weights,) = (folder / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="cannot be loaded") as damaged:
        load_backbone(folder, device="cpu")
    weights.unlink()
    with pytest.raises(BackboneError, match="cannot be loaded") as missing:
        load_backbone(folder, device="cpu")
    for caught in (damaged, missing):
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_config_that_is_no_json_is_named(folder: Path) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(BackboneError, match=r"scheduler_config\.json.*JSON"):
        load_backbone(folder, device="cpu")


def test_another_kind_of_model_is_refused(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "UNet2DModel"}))
    with pytest.raises(BackboneError, match="holds a UNet2DModel"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "tpu9"}, "Unknown device 'tpu9'"),
        ({"dtype": "fp4"}, "Unknown dtype 'fp4'"),
    ],
)
def test_unknown_devices_and_types_are_refused(
    tiny_zeroscope: Path, settings: dict[str, str], words: str
) -> None:
    with pytest.raises(BackboneError, match=words):
        load_backbone(tiny_zeroscope, **settings)


def test_a_missing_gpu_is_named(tiny_zeroscope: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackboneError, match="'cuda' is not available"):
        load_backbone(tiny_zeroscope, device="cuda")


def test_a_half_precision_model_still_reads_text_in_float32(tiny_zeroscope: Path) -> None:
    backbone = load_folder(tiny_zeroscope, device="cpu", dtype="bf16")
    assert backbone.dtype == torch.bfloat16
    text = backbone.encode_prompt(["a cat"])
    assert text.states.dtype == torch.float32
    latents = torch.zeros(1, 4, 2, 8, 12)
    prediction = backbone.predict_guided(latents, torch.tensor(5), text, text, 5.0)
    assert prediction.dtype == torch.float32 and prediction.isfinite().all()


def test_fingerprint_survives_a_copy_in_any_type(
    shared_backbone: UNet3D, tiny_zeroscope: Path, folder: Path
) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_diffusers_version": "9"}))
    for dtype in ("fp32", "bf16", "fp16"):
        copy = load_folder(folder, device="cpu", dtype=dtype)
        assert copy.fingerprint == shared_backbone.fingerprint
    assert len(shared_backbone.fingerprint) == 64


def test_fingerprint_sees_other_weights_and_another_schedule(
    shared_backbone: UNet3D, tmp_path: Path, folder: Path
) -> None:
    other = build_tiny_zeroscope(tmp_path / "other", seed=1)
    assert load_backbone(other, device="cpu").fingerprint != shared_backbone.fingerprint
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_end": 0.02}))
    assert load_backbone(folder, device="cpu").fingerprint != shared_backbone.fingerprint


def test_fingerprint_sees_training(tiny_zeroscope: Path) -> None:
    backbone = load_folder(tiny_zeroscope, device="cpu")
    before = fingerprint(tiny_zeroscope, {"unet": backbone.denoiser}, ["unet/config.json"])
    for parameter in backbone.denoiser.parameters():
        parameter.data += 0.002 * torch.randn(parameter.shape)
    assert fingerprint(tiny_zeroscope, {"unet": backbone.denoiser}, ["unet/config.json"]) != before


def test_outside_packages_add_rows(tiny_zeroscope: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = EntryPoint("mine", "customvideo.backbones.unet3d:load_zeroscope", "customvideo.backbones")
    stolen = EntryPoint("toybox", "os:getcwd", "customvideo.backbones")
    monkeypatch.setattr(tables, "entry_points", lambda group: [row, stolen])
    monkeypatch.setattr(unet3d, "fetch", lambda name: tiny_zeroscope)
    assert load_backbone("mine", device="cpu").name == "cerspense/zeroscope_v2_576w"
    # What is built in cannot be taken over.
    assert tables.all_rows(BACKBONES, "any")["toybox"] == BACKBONES["toybox"]


def test_a_family_is_known_before_anything_is_loaded(tmp_path: Path) -> None:
    assert family_of("wan-1.3b") == family_of("Wan-AI/Wan2.1-T2V-1.3B-Diffusers") == "wan"
    assert family_of("THUDM/CogVideoX-5b") == "cogvideox" and family_of("zeroscope") == "unet3d"
    assert family_of("toybox") is None and family_of("some/model") is None
    (tmp_path / "model_index.json").write_text('{"_class_name": "LTXPipeline"}')
    assert family_of(str(tmp_path)) == "ltx"
    (tmp_path / "model_index.json").write_text("[]")
    assert family_of(str(tmp_path)) is None


def test_every_known_hub_id_is_that_of_its_loader() -> None:
    for hub, row in _HUBS.items():
        source = tables.import_target(BACKBONES[row]).__globals__["__file__"]
        text = Path(source).read_text().lower()
        assert hub in text or hub.replace("zai-org", "thudm") in text, hub
