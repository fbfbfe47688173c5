"""The learned segmenters on tiny random models of their very classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from customvideo.errors import SubjectError
from customvideo.subjects import segmenters
from customvideo.subjects.segmenters import GroundedSam, Sam, Sam2, Sam3
from customvideo.subjects.tracking import track
from tests.subjects.films import crossing
from tests.subjects.photos import blob
from tests.subjects.tiny_segmenters import (
    SIDE,
    build_grounding_dino,
    build_sam,
    build_sam2,
    build_sam2_video,
    build_sam3,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmenters")
    build_sam(folder / "sam")
    build_sam2(folder / "sam2")
    build_sam3(folder / "sam3")
    build_grounding_dino(folder / "dino")
    return folder


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return blob(60, 90)[0]


def check(mask: NDArray[np.float32]) -> None:
    assert (mask.shape, mask.dtype) == ((60, 90), np.float32)
    assert 0 <= mask.min() < mask.max() <= 1


def test_sam_is_the_stock_model_prompted_in_the_middle(
    models: Path, image: NDArray[np.uint8]
) -> None:
    mask = Sam(str(models / "sam"))(image, "cat")
    check(mask)
    processor = transformers.SamProcessor.from_pretrained(models / "sam")
    network = transformers.SamModel.from_pretrained(models / "sam").eval()
    inputs = processor(
        images=Image.fromarray(image),
        input_points=[[[[45.0, 30.0]]]],
        input_labels=[[[1]]],
        input_boxes=[[[9.0, 6.0, 81.0, 54.0]]],
        return_tensors="pt",
    )
    with torch.no_grad():
        outputs = network(
            pixel_values=inputs["pixel_values"],
            input_points=inputs["input_points"].float(),
            input_labels=inputs["input_labels"],
            input_boxes=inputs["input_boxes"].float(),
        )
    logits = processor.post_process_masks(
        outputs.pred_masks,
        inputs["original_sizes"],
        inputs["reshaped_input_sizes"],
        binarize=False,
    )[0]
    best = logits[0, outputs.iou_scores[0, 0].argmax()].sigmoid()
    np.testing.assert_allclose(mask, best.numpy(), atol=1e-5)


def test_sam2_is_the_stock_model_prompted_in_the_middle(
    models: Path, image: NDArray[np.uint8]
) -> None:
    mask = Sam2(str(models / "sam2"))(image, "cat")
    check(mask)
    network = transformers.Sam2Model.from_pretrained(models / "sam2").eval()
    pixels = segmenters._normalised(image, SIDE, SIDE)
    with torch.no_grad():
        outputs = network(
            pixel_values=pixels,
            input_points=torch.tensor([[[[32.0, 32.0]]]]),
            input_labels=torch.tensor([[[1]]]),
            input_boxes=torch.tensor([[[6.4, 6.4, 57.6, 57.6]]]),
        )
    best = outputs.pred_masks[0, :, outputs.iou_scores[0, 0].argmax()][None]
    expected = torch.nn.functional.interpolate(best, (60, 90), mode="bilinear").sigmoid()
    np.testing.assert_allclose(mask, expected[0, 0].numpy(), atol=1e-5)


def test_sam3_is_the_stock_model_asked_by_name(
    models: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = Sam3(str(models / "sam3"))
    assert segment(image, "cat").max() == 0, "random weights are sure of nothing"
    monkeypatch.setattr(segmenters, "_FOUND", 0.0)
    mask = segment(image, "cat")
    check(mask)
    network = transformers.Sam3Model.from_pretrained(models / "sam3").eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(models / "sam3")
    words = tokenizer("cat", padding="max_length", max_length=32, return_tensors="pt")
    resized = Image.fromarray(image).resize((56, 56), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(resized) / 127.5 - 1).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        outputs = network(pixel_values=pixels, **words)
    scores = outputs.pred_logits[0].sigmoid() * outputs.presence_logits[0].sigmoid()
    best = outputs.pred_masks[0, scores.argmax()].sigmoid()[None, None]
    expected = torch.nn.functional.interpolate(best, (60, 90), mode="bilinear")[0, 0]
    np.testing.assert_allclose(mask, expected.numpy(), atol=0.01)
    assert np.abs(mask - segment(image, "dog")).max() > 0


def test_sam2_keeps_to_a_box(models: Path, image: NDArray[np.uint8]) -> None:
    segment = Sam2(str(models / "sam2"))
    one, other = segment.inside(image, (5, 5, 40, 50)), segment.inside(image, (50, 5, 85, 50))
    check(one)
    assert np.abs(one - other).max() > 0


def test_sam2_s_preparation_is_pillow_s_resize_and_imagenet_s_statistics(
    image: NDArray[np.uint8],
) -> None:
    pixels = segmenters._normalised(image, 32, 48)
    assert pixels.shape == (1, 3, 32, 48)
    resized = Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR)
    expected = (np.asarray(resized) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0), expected, atol=0.02)


@pytest.mark.parametrize("make", [Sam, Sam2])
def test_masks_follow_the_photo(
    models: Path, image: NDArray[np.uint8], make: type[Sam] | type[Sam2]
) -> None:
    segment = make(str(models / make.__name__.lower()))
    one, other = segment(image, "cat"), segment(255 - image, "cat")
    assert np.abs(one - other).max() > 1e-4
    np.testing.assert_array_equal(one, segment(image, "dog"))


def test_of_several_candidates_the_best_rated_is_taken() -> None:
    logits = torch.stack([torch.full((2, 3), value) for value in (-9.0, 9.0, 0.0)])[None, None]
    assert segmenters._best(logits, torch.tensor([[[0.1, 0.9, 0.2]]])).min() > 0.99
    assert segmenters._best(logits, torch.tensor([[[0.9, 0.1, 0.2]]])).max() < 0.01


def grounded(models: Path) -> GroundedSam:
    return GroundedSam(f"{models / 'dino'}, {models / 'sam'}")


def test_grounding_dino_s_best_box_is_the_stock_processor_s(
    models: Path, image: NDArray[np.uint8]
) -> None:
    box = grounded(models).detect(image, "Cat")
    processor = transformers.GroundingDinoProcessor.from_pretrained(models / "dino")
    network = transformers.GroundingDinoForObjectDetection.from_pretrained(models / "dino").eval()
    inputs = processor(images=Image.fromarray(image), text="cat.", return_tensors="pt")
    with torch.no_grad():
        outputs = network(**inputs)
    found = processor.post_process_grounded_object_detection(
        outputs, inputs.input_ids, threshold=0.25, target_sizes=[(60, 90)]
    )[0]
    best = found["boxes"][found["scores"].argmax()].clamp(min=0)
    assert box == pytest.approx(torch.minimum(best, torch.tensor([90, 60, 90, 60])).tolist(), 1e-4)


def test_grounded_sam_segments_inside_the_detected_box(
    models: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = grounded(models)
    box = segment.detect(image, "cat")
    assert box is not None
    mask = segment(image, "cat")
    check(mask)
    np.testing.assert_array_equal(mask, Sam(str(models / "sam")).inside(image, box))
    monkeypatch.setattr(GroundedSam, "detect", lambda *_: (0.0, 0.0, 20.0, 20.0))
    assert np.abs(mask - segment(image, "cat")).max() > 1e-5


def test_nothing_detected_gives_an_empty_mask(
    models: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenters, "_DETECTED", 1.1)
    assert grounded(models)(image, "cat").max() == 0


@pytest.mark.parametrize("make", [Sam, Sam2])
def test_missing_weights(
    tmp_path: Path, image: NDArray[np.uint8], make: type[Sam] | type[Sam2]
) -> None:
    with pytest.raises(SubjectError, match=r"gone' cannot be loaded; .*choose the segmenter grab"):
        make(str(tmp_path / "gone"))(image, "cat")


def test_a_hub_id_without_a_connection(
    image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SubjectError, match="'nobody/nothing' cannot be loaded; give a folder"):
        Sam("nobody/nothing")(image, "cat")


def test_weights_of_another_model(models: Path, image: NDArray[np.uint8]) -> None:
    with pytest.raises(SubjectError, match="holds a model of type 'sam', not 'sam2'"):
        Sam2(str(models / "sam"))(image, "cat")
    with pytest.raises(SubjectError, match="holds a model of type 'grounding-dino', not 'sam'"):
        Sam(str(models / "dino"))(image, "cat")


@pytest.mark.parametrize("model", ["only-one", ",sam", "dino,"])
def test_grounded_sam_needs_two_models(model: str) -> None:
    with pytest.raises(SubjectError, match="write 'DETECTOR,SEGMENTER'"):
        GroundedSam(model)


def test_sam2_follows_through_a_clip_as_the_stock_video_model_does(tmp_path: Path) -> None:
    folder = build_sam2_video(tmp_path / "video")
    frames, truth = crossing(5, 48, 60)
    segment = Sam2(str(folder))
    masks = segment.track(frames, 2, truth[2])
    assert masks.shape == (5, 48, 60)
    assert masks.dtype == np.float32
    # The same by the stock session, which is handed the whole clip at once.
    network = transformers.Sam2VideoModel.from_pretrained(folder).eval()
    video = torch.cat([segmenters._normalised(frame, SIDE, SIDE) for frame in frames])
    given = torch.nn.functional.interpolate(
        torch.from_numpy(truth[2])[None, None], (SIDE, SIDE), mode="bilinear"
    )
    for reverse, places in ((False, (3, 4)), (True, (1, 0))):
        session = Sam2VideoInferenceSession(video, 48, 60, dtype=torch.float32)
        session.obj_id_to_idx(1)
        session.add_mask_inputs(0, 2, (given >= 0.5).float())
        session.obj_with_new_inputs = [1]
        network(session, frame_idx=2)
        found = {
            output.frame_idx: output.pred_masks
            for output in network.propagate_in_video_iterator(session, 2, reverse=reverse)
        }
        for place in places:
            large = torch.nn.functional.interpolate(found[place], (48, 60), mode="bilinear")
            np.testing.assert_allclose(masks[place], large[0, 0].sigmoid(), atol=1e-4)
    assert np.abs(masks[0] - masks[4]).max() > 1e-4
    # The frame whose mask was given is given back.
    one, other = masks[2] >= 0.5, truth[2] >= 0.5
    assert (one & other).sum() / (one | other).sum() > 0.7
    assert track(frames, "cat", segment).shape == masks.shape


def test_sam2_s_image_model_alone_follows_nothing(models: Path) -> None:
    frames, truth = crossing(3, 48, 60)
    with pytest.raises(SubjectError, match="type 'sam2', not 'sam2_video'"):
        Sam2(str(models / "sam2")).track(frames, 0, truth[0])
