"""Finders: the table, and Grounding DINO on a tiny random model of its very class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from customvideo.errors import EvaluationError
from customvideo.evaluation import instances
from customvideo.evaluation.encoders import CLIP_STATISTICS
from customvideo.evaluation.instances import (
    SEGMENTERS,
    GroundingDino,
    Instance,
    InstanceSegmenter,
    NounSegmenter,
    Owlv2,
    resolve_segmenter,
)
from tests.evaluation.finders import ColourFinder
from tests.evaluation.tiny_finders import SIDE, build_owlv2
from tests.subjects.photos import blob
from tests.subjects.tiny_segmenters import build_grounding_dino


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_grounding_dino(tmp_path_factory.mktemp("finders") / "dino")


@pytest.fixture(scope="module")
def owl(tmp_path_factory: pytest.TempPathFactory, tiny_zeroscope: Path) -> Path:
    return build_owlv2(tmp_path_factory.mktemp("finders") / "owl", tiny_zeroscope / "tokenizer")


@pytest.fixture(scope="module")
def finder(folder: Path) -> GroundingDino:
    return GroundingDino(folder, ["cat", "dog"])


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    image = blob(60, 90)[0]
    return np.stack([image, 255 - image])


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((60, 90), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_an_instance_knows_its_box() -> None:
    mask = box(5, 7, 20, 30)
    mask[7:20, 5:10] = False
    assert Instance(mask, "cat", 0.5).box == (5, 7, 20, 30)
    one = np.zeros((4, 6), bool)
    one[3, 5] = True
    assert Instance(one, "cat", 0.5).box == (5, 3, 6, 4)


@pytest.mark.parametrize("mask", [np.zeros((4, 6), bool), np.ones((4, 6)), np.ones(4, bool)])
def test_an_instance_is_a_mask_of_something(mask: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        Instance(mask, "cat", 0.5)


def test_boxes_and_scores_are_the_stock_processor_s(
    folder: Path, finder: GroundingDino, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "_SAME_THING", 1.1)
    monkeypatch.setattr(instances, "_DETECTED", 0.0)
    processor = transformers.GroundingDinoProcessor.from_pretrained(folder)
    network = transformers.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    for frame, found in zip(frames, finder.find(frames), strict=True):
        inputs = processor(images=Image.fromarray(frame), text="cat. dog.", return_tensors="pt")
        with torch.no_grad():
            outputs = network(**inputs)
        # [CLS] cat . dog . [SEP]; the stock score is the best of all six, ours of cat and dog.
        answers = outputs.logits[0].sigmoid()[:, [1, 3]]
        stock = processor.post_process_grounded_object_detection(
            outputs, inputs.input_ids, threshold=0.0, target_sizes=[(60, 90)]
        )[0]
        order = answers.amax(-1).argsort(descending=True).tolist()
        assert len(found) == len(order) == 2
        for instance, query in zip(found, order, strict=True):
            assert instance.score == pytest.approx(float(answers[query].max()), abs=1e-5)
            assert instance.category == ("cat", "dog")[int(answers[query].argmax())]
            assert instance.mask.shape == (60, 90)
            exact = np.clip(stock["boxes"][query].numpy(), 0, (90, 60, 90, 60))
            assert np.abs(np.array(instance.box) - exact).max() <= 0.5 + 1e-3


def test_owlv2_s_boxes_and_scores_are_the_stock_ones(
    owl: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "_SAME_PATCH", 1.1)
    monkeypatch.setattr(instances, "_DETECTED", 0.0)
    network = transformers.Owlv2ForObjectDetection.from_pretrained(owl).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(owl)
    stock = transformers.Owlv2ImageProcessorPil()
    tokens = tokenizer(
        ["a photo of a cat", "a photo of an owl"],
        padding="max_length",
        max_length=16,
        return_tensors="pt",
    )
    for frame, found in zip(frames, Owlv2(owl, ["cat", "owl"]).find(frames), strict=True):
        with torch.no_grad():
            outputs = network(**tokens, pixel_values=instances._squared(frame, SIDE))
        answer = stock.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[frame.shape[:2]]
        )[0]
        order = answer["scores"].argsort(descending=True).tolist()
        assert len(found) == len(order) == (SIDE // 8) ** 2
        assert {one.category for one in found} == {"cat", "owl"}
        for instance, query in zip(found, order, strict=True):
            assert instance.score == pytest.approx(float(answer["scores"][query]), abs=1e-5)
            assert instance.category == ("cat", "owl")[int(answer["labels"][query])]
            exact = np.clip(answer["boxes"][query].numpy(), 0, (90, 60, 90, 60))
            near = np.abs(np.array(instance.box) - exact)
            # A box beside the frame, in its padding, is pushed to its last row.
            assert near.max() <= 1 + 1e-3


def test_owlv2_sees_the_frame_at_the_upper_left_of_a_black_square(frames: np.ndarray) -> None:
    mean, deviation = (torch.tensor(values) for values in CLIP_STATISTICS)
    pixels = instances._squared(frames[0], 90)[0].movedim(0, -1) * deviation + mean
    torch.testing.assert_close(pixels[:60], torch.from_numpy(frames[0] / np.float32(255)))
    assert pixels[60:].abs().max() < 1e-6
    # Shrunk, it is the mean of what lies together.
    flat = np.full((64, 64, 3), 100, np.uint8)
    small = instances._squared(flat, 16)[0].movedim(0, -1) * deviation + mean
    torch.testing.assert_close(small, torch.full((16, 16, 3), 100 / 255))


def test_no_frame_depends_on_its_company(finder: GroundingDino, frames: np.ndarray) -> None:
    for alone, together in zip(
        (finder.find(frames[index : index + 1])[0] for index in range(2)),
        finder.find(frames),
        strict=True,
    ):
        assert [one.score for one in alone] == [one.score for one in together]
        assert [one.box for one in alone] == [one.box for one in together]


def test_the_nouns_tokens_decide_what_a_query_is_called(finder: GroundingDino) -> None:
    told = finder.looking_for(["Dog", "cat dog", "dog"])
    assert told.nouns == ("dog", "cat dog")
    assert finder.nouns == ("cat", "dog"), "the first finder looks for what it was told"
    # [CLS] dog . cat dog . [SEP]
    ids = torch.tensor([2, 7, 5, 6, 7, 5, 3])
    answers = torch.tensor([[0.9, 0.2, 0.9, 0.1, 0.3, 0.9, 0.9, 0.9]])
    assert told._per_noun(answers, ids).tolist() == [pytest.approx([0.2, 0.3])]


def test_nothing_sure_enough_is_nothing_found(
    finder: GroundingDino, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "_DETECTED", 1.1)
    assert finder.find(frames) == [[], []]


def test_one_thing_found_twice_is_one_thing() -> None:
    cat, shade = Instance(box(0, 0, 40, 40), "cat", 0.6), Instance(box(0, 0, 40, 36), "dog", 0.9)
    near = Instance(box(20, 0, 60, 40), "cat", 0.3)
    assert instances._distinct([cat, shade, near], 0.8) == [shade, near]
    assert instances._distinct([cat, shade, near], 0.3) == [shade]


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        ((0.5, 0.5, 0.2, 0.5), (36, 15, 54, 45)),
        ((0.0, 1.0, 0.5, 0.5), (0, 45, 22, 60)),
        ((1.2, -0.3, 0.1, 0.1), (89, 0, 90, 1)),
        ((0.5, 0.5, 3.0, 3.0), (0, 0, 90, 60)),
    ],
)
def test_boxes_stay_inside_and_are_never_empty(
    centre: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    assert instances._corners(torch.tensor([centre]), (60, 90)) == [expected]


@pytest.mark.parametrize("name", ["grounding-dino", "owlv2"])
def test_a_finder_of_nouns_wants_to_be_told(
    name: str, folder: Path, owl: Path, frames: np.ndarray
) -> None:
    finder = resolve_segmenter(name, folder if name == "grounding-dino" else owl)
    assert isinstance(finder, NounSegmenter)
    with pytest.raises(EvaluationError, match="not told what to look for; give it categories"):
        finder.find(frames)
    assert len(finder.looking_for(["cat"]).find(frames)) == 2


def test_a_finder_that_needs_no_nouns_is_none_of_nouns() -> None:
    finder = ColourFinder({})
    assert isinstance(finder, InstanceSegmenter) and not isinstance(finder, NounSegmenter)


def test_the_table_and_an_unknown_name() -> None:
    assert set(SEGMENTERS) == {"toybox", "grounding-dino", "owlv2"}
    with pytest.raises(EvaluationError, match=r"'toybx'; did you mean 'toybox'\?"):
        resolve_segmenter("toybx")


@pytest.mark.parametrize(
    ("name", "held"), [("grounding-dino", "AutoModel"), ("owlv2", "Owlv2ForObjectDetection")]
)
def test_missing_weights_are_one_sentence(
    name: str, held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for source, message in [
        (tmp_path, f"holds no {held}"),
        ("nobody/nothing", "go online once"),
    ]:
        with pytest.raises(EvaluationError, match=message) as caught:
            resolve_segmenter(name, source)
        assert "\n" not in str(caught.value)
