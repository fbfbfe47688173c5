"""Segmenters that are learned models: SAM, SAM 2, SAM 3, and SAM behind a Grounding DINO detector.

Stock transformers classes, loaded on the first photo from the hub or a folder (safetensors only);
torchvision is not needed. This is the only file of the room that imports transformers, and it
knows nothing of files and subjects: `customvideo.subjects.masks` names its classes in a table.

Axes: row (always 1), query, candidate, height, width. Boxes are (left, top, right, bottom) and
points (x, y), in pixels of the photo.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from customvideo.errors import SubjectError
from customvideo.quiet import without_bars
from customvideo.subjects.sam2_video import follow

__all__ = ["GroundedSam", "Sam", "Sam2", "Sam3"]

Image = NDArray[np.uint8]
Mask = NDArray[np.float32]
Box = tuple[float, float, float, float]

_CENTRAL = 0.8  # share of each side that the box spans when nothing says where the subject is
_DETECTED = 0.25  # least score of a detection, Grounding DINO's own default
_FOUND = 0.3  # least score of an instance, SAM 3's own default
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)  # SAM 3's mean and deviation of every channel
_WORDS = 32  # tokens SAM 3 reads


class Sam:
    """Segment Anything (Kirillov et al., 2023), asked for the thing in the middle.

    The prompt is the centre point and a central box; of the model's candidates the one it rates
    best is taken. `model` is a hub id or folder in transformers' format.
    """

    def __init__(self, model: str = "facebook/sam-vit-base") -> None:
        self.model = model

    def __call__(self, image: Image, category: str) -> Mask:
        """Soft mask (height, width) in [0, 1] of `image` (height, width, 3); ignores `category`."""
        del category
        return self.inside(image, _central_box(image), _centre(image))

    def inside(self, image: Image, box: Box, point: tuple[float, float] | None = None) -> Mask:
        """Soft mask (height, width) of the thing in `box`, on `point` if one is given."""
        processor, network = self._loaded
        inputs = processor(
            images=image,
            input_boxes=[[list(box)]],
            input_points=None if point is None else [[[list(point)]]],
            input_labels=None if point is None else [[[1]]],
            return_tensors="pt",
        )
        sizes, reshaped = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        with torch.inference_mode():
            outputs = network(**_to(inputs, network.device), multimask_output=True)
        logits = processor.image_processor.post_process_masks(
            outputs.pred_masks.float().cpu(), sizes, reshaped, binarize=False
        )[0]
        return _best(logits[None], outputs.iou_scores)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import SamModel, SamProcessor

        network = _load(SamModel, self.model, ("sam",))
        return _load_processor(SamProcessor, self.model), network


class Sam2:
    """SAM 2 (Ravi et al., 2024), asked for the thing in the middle, which it follows through clips.

    Its stock processor needs torchvision, so photos are resized and normalised here as it does.
    """

    def __init__(self, model: str = "facebook/sam2.1-hiera-small") -> None:
        self.model = model

    def __call__(self, image: Image, category: str) -> Mask:
        """Soft mask (height, width) in [0, 1] of `image` (height, width, 3); ignores `category`."""
        del category
        return self.inside(image, _central_box(image), _centre(image))

    def inside(self, image: Image, box: Box, point: tuple[float, float] | None = None) -> Mask:
        """Soft mask (height, width) of the thing in `box`, on `point` if one is given."""
        network = self._loaded
        height, width = image.shape[:2]
        tall, wide = _pair(network.config.vision_config.backbone_config.image_size)
        scale = torch.tensor([wide / width, tall / height])
        inputs = {
            "pixel_values": _normalised(image, tall, wide),
            "input_boxes": (torch.tensor(box).reshape(2, 2) * scale).reshape(1, 1, 4),
        }
        if point is not None:
            inputs["input_points"] = (torch.tensor(point) * scale).reshape(1, 1, 1, 2)
            inputs["input_labels"] = torch.ones(1, 1, 1, dtype=torch.int64)
        with torch.inference_mode():
            outputs = network(**_to(inputs, network.device), multimask_output=True)
        logits = functional.interpolate(
            outputs.pred_masks[0].float().cpu(), (height, width), mode="bilinear"
        )
        return _best(logits[None], outputs.iou_scores)

    def track(self, frames: Image, key: int, mask: Mask) -> Mask:
        """Soft masks (frame, height, width) of what `mask` (height, width) marks in frame `key` of
        `frames` (frame, height, width, 3).

        Raises:
            SubjectError: the weights are of the image model alone.
        """
        network = self._loaded_for_clips
        size = _pair(network.config.vision_config.backbone_config.image_size)
        return follow(network, frames, key, mask, lambda frame: _normalised(frame, *size))

    @cached_property
    def _loaded_for_clips(self) -> Any:
        from transformers import Sam2VideoModel

        return _load(Sam2VideoModel, self.model, ("sam2_video",))

    @cached_property
    def _loaded(self) -> Any:
        from transformers import Sam2Model

        # Published checkpoints carry the video model's type; the image model is a part of it.
        return _load(Sam2Model, self.model, ("sam2", "sam2_video"))


class Sam3:
    """SAM 3 (Meta, 2025), asked for the category by name.

    Its stock processor needs torchvision, so photos are resized and normalised here as it does.
    Its weights are gated on the hub: accept their licence there, or give a folder.
    """

    reads_words = True

    def __init__(self, model: str = "facebook/sam3") -> None:
        self.model = model

    def __call__(self, image: Image, category: str) -> Mask:
        """Soft mask (height, width) of the likeliest `category` in `image`; zero if none is."""
        tokenizer, network = self._loaded
        height, width = image.shape[:2]
        size = _pair(network.config.image_size)
        words = tokenizer(
            category, padding="max_length", max_length=_WORDS, truncation=True, return_tensors="pt"
        )
        inputs = {
            "pixel_values": _normalised(image, *size, _HALF, _HALF),
            "input_ids": words["input_ids"],
            "attention_mask": words["attention_mask"],
        }
        with torch.inference_mode():
            outputs = network(**_to(inputs, network.device))
        scores = outputs.pred_logits[0].float().sigmoid()
        scores = scores * outputs.presence_logits[0].float().sigmoid()
        best = int(scores.argmax())
        if scores[best] <= _FOUND:
            return np.zeros((height, width), np.float32)
        mask = outputs.pred_masks[0, best].float().sigmoid().cpu()[None, None]
        large = functional.interpolate(mask, (height, width), mode="bilinear")[0, 0]
        return large.numpy().astype(np.float32)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import CLIPTokenizer, Sam3Model

        # Published checkpoints carry the video model's type; the image model is a part of it.
        network = _load(Sam3Model, self.model, ("sam3", "sam3_video"))
        return _load_processor(CLIPTokenizer, self.model), network


class GroundedSam:
    """Grounding DINO (Liu et al., 2023) finds the category, SAM cuts out the best detection.

    `model` names the two, separated by a comma: `detector,segmenter`, each a hub id or folder.
    """

    reads_words = True

    def __init__(
        self, model: str = "IDEA-Research/grounding-dino-tiny,facebook/sam-vit-base"
    ) -> None:
        detector, comma, segmenter = model.partition(",")
        if not (detector.strip() and comma and segmenter.strip()):
            raise SubjectError(
                f"'{model}' does not name the models of grounded-sam; "
                "write 'DETECTOR,SEGMENTER', two folders or hub ids."
            )
        self.detector = detector.strip()
        self.sam = Sam(segmenter.strip())

    def __call__(self, image: Image, category: str) -> Mask:
        """Soft mask (height, width) of the likeliest `category` in `image`; zero if none is."""
        box = self.detect(image, category)
        if box is None:
            return np.zeros(image.shape[:2], np.float32)
        return self.sam.inside(image, box)

    def inside(self, image: Image, box: Box) -> Mask:
        """Soft mask (height, width) of the thing in `box`, whatever it is."""
        return self.sam.inside(image, box)

    def detect(self, image: Image, category: str) -> Box | None:
        """The box of the likeliest `category`, or None if nothing scores 0.25."""
        processor, network = self._loaded
        # Grounding DINO was trained on lower-case phrases that end in a full stop.
        inputs = processor(images=image, text=f"{category.lower()}.", return_tensors="pt")
        with torch.inference_mode():
            outputs = network(**_to(inputs, network.device))
        scores = outputs.logits[0].float().sigmoid().amax(dim=-1)
        best = int(scores.argmax())
        if scores[best] < _DETECTED:
            return None
        across, down, wide, tall = outputs.pred_boxes[0, best].tolist()
        height, width = image.shape[:2]
        left, right = (across - wide / 2) * width, (across + wide / 2) * width
        top, bottom = (down - tall / 2) * height, (down + tall / 2) * height
        return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

        network = _load(GroundingDinoForObjectDetection, self.detector, ("grounding-dino",))
        return _load_processor(GroundingDinoProcessor, self.detector), network


def _load(network_class: Any, model: str, types: tuple[str, ...]) -> Any:
    """The network in evaluation mode, on the GPU if there is one, after checking what it is."""
    from transformers import PretrainedConfig

    try:
        found = PretrainedConfig.get_config_dict(model)[0].get("model_type")
        if found not in types:
            raise SubjectError(
                f"'{model}' holds a model of type '{found}', not '{types[0]}'; choose the "
                "segmenter it belongs to or another folder."
            )
        with without_bars():
            network = network_class.from_pretrained(
                model, use_safetensors=True, dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        raise _unloadable(model, error) from error
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _load_processor(processor_class: Any, model: str) -> Any:
    try:
        return processor_class.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise _unloadable(model, error) from error


def _unloadable(model: str, error: Exception) -> SubjectError:
    if isinstance(error, SubjectError):
        return error
    return SubjectError(
        f"The segmenter's weights '{model}' cannot be loaded; give a folder that holds them, check "
        "the connection, or choose the segmenter grabcut, which needs none."
    )


def _best(logits: Tensor, ratings: Tensor) -> Mask:
    """The candidate the model rates best.

    `logits` is (row, query, candidate, height, width), `ratings` (row, query, candidate).
    """
    chosen = logits[0, 0, int(ratings[0, 0].argmax())]
    return chosen.sigmoid().numpy().astype(np.float32)


def _normalised(
    image: Image,
    height: int,
    width: int,
    mean: tuple[float, ...] = _IMAGENET_MEAN,
    deviation: tuple[float, ...] = _IMAGENET_STD,
) -> Tensor:
    """The photo as SAM 2 and 3 read it: (row, 3, height, width), stretched and normalised."""
    pixels = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    resized = functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    middle, spread = torch.tensor(mean), torch.tensor(deviation)
    return (resized - middle[:, None, None]) / spread[:, None, None]


def _centre(image: Image) -> tuple[float, float]:
    return image.shape[1] / 2, image.shape[0] / 2


def _central_box(image: Image) -> Box:
    height, width = image.shape[:2]
    low, high = (1 - _CENTRAL) / 2, (1 + _CENTRAL) / 2
    return low * width, low * height, high * width, high * height


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) of a configuration's size, which may be one number for both."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _to(inputs: Any, device: torch.device) -> dict[str, Tensor]:
    # Processors compute points in float64, which no network takes.
    return {
        name: value.to(device, torch.float32) if value.is_floating_point() else value.to(device)
        for name, value in inputs.items()
    }
