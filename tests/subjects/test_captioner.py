"""Captions by image-text models: the stock model's words, without the subject's look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from customvideo.errors import SubjectError
from customvideo.subjects.captioner import Captioner, instruction, without_looks
from tests.subjects.photos import textured
from tests.subjects.tiny_captioners import build_blip, build_llava


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioners")
    build_blip(folder / "blip")
    build_llava(folder / "llava")
    return folder


@pytest.mark.parametrize("kind", ["blip", "llava"])
def test_the_words_are_the_stock_model_s(models: Path, kind: str) -> None:
    image, folder = textured(0, 40, 60), str(models / kind)
    told = Captioner(folder, "cpu").describe(image, "cat")
    processor = transformers.AutoProcessor.from_pretrained(folder)
    network = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    text = None
    if kind == "llava":
        asked = [{"type": "image"}, {"type": "text", "text": instruction("cat")}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": asked}], add_generation_prompt=True
        )
    inputs = processor(images=Image.fromarray(image), text=text, return_tensors="pt")
    with torch.no_grad():
        ids = network.generate(**inputs, max_new_tokens=60, do_sample=False)
    if kind == "llava":
        ids = ids[:, inputs["input_ids"].shape[1] :]
    assert told == " ".join(processor.batch_decode(ids, skip_special_tokens=True)[0].split())
    assert told and "Do not describe" not in told


def test_a_caption_is_what_is_left_of_the_description(models: Path) -> None:
    captioner = Captioner(str(models / "blip"), "cpu")
    image = textured(0, 40, 60)
    assert captioner(image, "cat") == without_looks(captioner.describe(image, "cat"), "cat")
    np.testing.assert_array_equal(image, textured(0, 40, 60))


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="cannot be loaded; give a folder or hub id"):
        Captioner(str(tmp_path / "gone"))(textured(0), "cat")


@pytest.mark.parametrize(
    ("said", "category", "kept"),
    [
        ("a black and white cat sitting on a red sofa", "cat", "a cat sitting on a red sofa"),
        (
            "A fluffy orange tabby cat with green eyes sits on a sill. Its fur is long. It rains.",
            "cat",
            "A cat sits on a sill. It rains.",
        ),
        ("a woman holding a small brown dog", "dog", "a woman holding a dog"),
        (
            "The dog has brown fur. The dog is running on a green lawn.",
            "dog",
            "The dog is running on a green lawn.",
        ),
        ("an old red teapot that has a blue handle on a table", "teapot", "a teapot on a table"),
        (
            "A worn stuffed animal lies on a red rug",
            "stuffed animal",
            "A stuffed animal lies on a red rug",
        ),
        ("a cat that is black lies on a rug", "cat", "a cat lies on a rug"),
        ("a dog, white and brown, on sand", "dog", "a dog, on sand"),
        ("two black cats on a bed", "cat", "two cats on a bed"),
        ("an empty room", "cat", "an empty room"),
        ("", "cat", ""),
    ],
)
def test_looks_are_taken_out_and_surroundings_stay(said: str, category: str, kept: str) -> None:
    assert without_looks(said, category) == kept


def test_the_question_forbids_what_must_not_be_learned() -> None:
    asked = instruction("owl")
    assert "an owl" in asked and "Do not describe how the owl itself looks" in asked
