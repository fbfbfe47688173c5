"""The encoders against transformers' own way through the same tiny random models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from customvideo.errors import EvaluationError
from customvideo.evaluation.encoders import (
    ENCODERS,
    ClipEncoder,
    DinoEncoder,
    Dinov2Encoder,
    Dinov3Encoder,
    ImageEncoder,
    TextImageEncoder,
    placed,
    prepare_pictures,
    resolve_encoder,
)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 41, 67, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(41, 67), (67, 41), (32, 32), (20, 90), (50, 33)])
@pytest.mark.parametrize("shorter", [32, 36])
def test_pictures_are_prepared_as_the_stock_processor_does(
    shape: tuple[int, int], shorter: int
) -> None:
    from transformers import CLIPImageProcessorPil

    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    mean, deviation = (0.4, 0.5, 0.3), (0.2, 0.25, 0.3)
    stock = CLIPImageProcessorPil(
        size={"shortest_edge": shorter}, crop_size=32, image_mean=mean, image_std=deviation
    )
    expected = torch.as_tensor(np.stack(stock(image)["pixel_values"]))
    ours = prepare_pictures(image[None], shorter, 32, (mean, deviation))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_the_crop_by_an_odd_number_rounds_as_torchvision_does() -> None:
    image = np.random.default_rng(2).integers(0, 256, (32, 35, 3), dtype=np.uint8)
    prepared = prepare_pictures(image[None], 32, 32, ((0.0,) * 3, (1.0,) * 3))
    # 3 columns too many: round(1.5) is 2.
    expected = torch.from_numpy(image[:, 2:34].copy()).movedim(-1, 0).float() / 255
    torch.testing.assert_close(prepared[0], expected)


def test_clip_features_equal_the_stock_model(tiny_clip: Path, pictures: np.ndarray) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    encoder = ClipEncoder(tiny_clip)
    texts = ["a cat on the beach", "a photo of a dog and a bear " * 9]
    stock = CLIPModel.from_pretrained(tiny_clip).eval()
    tokens = CLIPTokenizer.from_pretrained(tiny_clip)(
        texts, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    with torch.no_grad():
        out = stock(**tokens, pixel_values=prepare_pictures(pictures, 32, 32, (mean, deviation)))
    torch.testing.assert_close(encoder.encode_text(texts), out.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode_images(pictures), out.image_embeds, atol=1e-5, rtol=0)


def test_dino_feature_is_the_class_token(tiny_dino: Path, pictures: np.ndarray) -> None:
    from transformers import ViTModel

    stock = ViTModel.from_pretrained(tiny_dino, add_pooling_layer=False).eval()
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = prepare_pictures(pictures, 37, 32, (mean, deviation))
    with torch.no_grad():
        expected = F.normalize(stock(pixels).last_hidden_state[:, 0], dim=-1)
    torch.testing.assert_close(
        DinoEncoder(tiny_dino).encode_images(pictures), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("name", "encoder", "size"), [("dinov2", Dinov2Encoder, 64), ("dinov3", Dinov3Encoder, 32)]
)
def test_the_successors_of_dino_give_their_class_token_as_well(
    name: str,
    encoder: type[DinoEncoder],
    size: int,
    pictures: np.ndarray,
    request: pytest.FixtureRequest,
) -> None:
    from transformers import AutoModel

    folder = request.getfixturevalue(f"tiny_{name}")
    stock = AutoModel.from_pretrained(folder).eval()
    pixels = prepare_pictures(
        pictures, round(size * 256 / 224), size, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        out = stock(pixels)
    # Their pooled output is the class token after the last normalisation.
    expected = F.normalize(out.pooler_output, dim=-1)
    for made in (encoder(folder), resolve_encoder(name, folder), DinoEncoder(folder)):
        torch.testing.assert_close(made.encode_images(pictures), expected, atol=1e-5, rtol=0)


def test_a_successor_trained_on_larger_pictures_reads_224(
    tiny_dinov2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("customvideo.evaluation.encoders._DINO_SIZE", 32)
    encoder = Dinov2Encoder(tiny_dinov2)
    sizes = []
    encoder.model.register_forward_pre_hook(
        lambda _module, _args, given: sizes.append(given["pixel_values"].shape), with_kwargs=True
    )
    encoder.encode_images(np.zeros((1, 40, 50, 3), np.uint8))
    assert encoder.model.config.image_size == 64 and sizes == [(1, 3, 32, 32)]


def test_features_are_unit_vectors_that_no_batch_size_changes(
    tiny_clip: Path, tiny_dino: Path, pictures: np.ndarray
) -> None:
    for make in (
        lambda n: ClipEncoder(tiny_clip, batch_size=n),
        lambda n: DinoEncoder(tiny_dino, batch_size=n),
    ):
        one, three, all_at_once = (make(size).encode_images(pictures) for size in (1, 3, 32))
        torch.testing.assert_close(one.norm(dim=-1), torch.ones(len(pictures)))
        torch.testing.assert_close(one, three, atol=1e-6, rtol=0)
        torch.testing.assert_close(one, all_at_once, atol=1e-6, rtol=0)
        assert (one[0] - one[1]).abs().max() > 1e-4


def test_the_table_makes_encoders_from_a_folder(tiny_clip: Path, tiny_dino: Path) -> None:
    assert isinstance(resolve_encoder("clip", tiny_clip), TextImageEncoder)
    assert isinstance(resolve_encoder("dino", tiny_dino), ImageEncoder)
    assert set(ENCODERS) == {"clip", "dino", "dinov2", "dinov3", "toybox-clip", "toybox-dino"}


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(EvaluationError, match="no encoder 'clap'; did you mean 'clip'"):
        resolve_encoder("clap")
    with pytest.raises(EvaluationError, match=r"'zzz'; known are clip, dino, dinov2, dinov3, toy"):
        resolve_encoder("zzz")


def test_the_device_asked_for_is_used_even_where_there_is_a_gpu(
    tiny_clip: Path, tiny_dino: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placed("auto").type == "cuda"
    for name, folder in (("clip", tiny_clip), ("dino", tiny_dino)):
        assert resolve_encoder(name, folder, "cpu").device.type == "cpu"


def test_loading_draws_no_bars(tiny_clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ClipEncoder(tiny_clip, device="cpu")
    assert capfd.readouterr().err == ""


def test_a_folder_without_a_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="holds no CLIPModel") as caught:
        ClipEncoder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [ClipEncoder, DinoEncoder, Dinov2Encoder, Dinov3Encoder])
def test_without_a_network_the_default_model_is_one_sentence(
    make: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EvaluationError, match="go online once, or give a folder") as caught:
        make(f"nobody/nothing-{make.__name__.lower()}")
    assert "\n" not in str(caught.value)
