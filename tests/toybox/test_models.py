"""The toybox's parts: a tokenizer nothing can crash, stock classes, sizes within the budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from customvideo.toybox import models
from customvideo.toybox.captions import vocabulary


@pytest.fixture(scope="module")
def tokenizer() -> models.CLIPTokenizer:
    return models.build_tokenizer(vocabulary())


def test_every_word_of_the_captions_is_one_token(tokenizer: models.CLIPTokenizer) -> None:
    broken = [word for word in vocabulary() if len(tokenizer.tokenize(word)) != 1]
    assert broken == []


@pytest.mark.parametrize("text", ["Žürich 猫 \x00 🎈", "", "<tom>'s", "\u202e\u0301" * 9])
def test_any_text_is_spelled_without_an_unknown_token(
    tokenizer: models.CLIPTokenizer, text: str
) -> None:
    ids = tokenizer(text).input_ids[1:-1]
    assert tokenizer.unk_token_id not in ids
    assert all(0 <= token < len(tokenizer) for token in ids)


def test_byte_symbols_are_256_different_ones() -> None:
    symbols = models.byte_symbols()
    assert len(set(symbols)) == 256
    assert symbols[ord("a")] == "a"


def test_the_model_fits_its_share_of_the_weights(tokenizer: models.CLIPTokenizer) -> None:
    parts = [
        models.build_denoiser(),
        models.build_autoencoder(),
        models.build_text_encoder(tokenizer),
        models.build_clip(tokenizer),
        models.build_dino(),
    ]
    assert 2 * sum(map(models.parameter_count, parts)) < 26e6


def test_half_precision_files_say_float32(tmp_path: Path) -> None:
    models.save_half(models.build_dino(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    loaded = models.ViTModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert next(loaded.parameters()).dtype == torch.float32


def test_an_action_is_seen_in_one_square_for_all_frames() -> None:
    frames, masks = torch.zeros(8, 3, 64, 96), torch.zeros(8, 64, 96)
    for time in range(8):
        # A white block of 10 x 10 pixels wanders to the right, over the picture's edge.
        left = 60 + 4 * time
        masks[time, 20:30, left : left + 10] = 1
        frames[time, :, 20:30, left : left + 10] = 1
    view = models.action_view(frames, masks, margin=0.0)
    assert view.shape == (8, 3, 48, 48)
    columns = [float(one[0].sum(0).argmax()) for one in view]
    # The square is as wide as the way: the block crosses all of it and stays in the middle rows.
    assert columns == sorted(columns) and columns[0] < 12 and columns[-1] > 36
    rows = view.abs().sum((0, 1, 3))
    assert rows[:12].sum() == rows[36:].sum() == 0 and rows[20:28].sum() > 0
    assert torch.allclose(view.mean(0), torch.zeros(3, 48, 48), atol=1e-6)
    assert torch.equal(view, models.action_view(frames, masks * 7, margin=0.0))


def test_every_process_builds_the_same_tokenizer() -> None:
    """Tokens that trade places would mix up what two courses learned."""
    words = ["cat", "car", "cab", "an", "at", "ad", "zuko", "zuku", "of", "on"]
    tokenizer = models.build_tokenizer(words)
    assert [tokenizer.tokenize(word) for word in words] == [[f"{word}</w>"] for word in words]
    vocabulary = tokenizer.get_vocab()
    assert vocabulary == models.build_tokenizer(reversed(words)).get_vocab()
    # After the bytes, plain and ending a word: the most frequent pair, then ties by the alphabet.
    merged = sorted(vocabulary, key=vocabulary.__getitem__)[512:516]
    assert merged == ["ca", "uk", "zuk", "ad</w>"]
