"""Who is where in a frame: single subjects found one by one, and the table of their finders.

A finder says which pixels belong to one thing and of what category it is; which individual that is,
it cannot know: `customvideo.evaluation.binding` decides it. Nor does it look at attention: a score
read from the maps that training pulled at would praise the training, not the video.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from customvideo.errors import EvaluationError
from customvideo.evaluation.encoders import (
    CLIP_STATISTICS,
    Pictures,
    load_pretrained,
    made_for,
    placed,
)
from customvideo.subjects.prompt import article
from customvideo.tables import all_rows, look_up

__all__ = [
    "SEGMENTERS",
    "GroundingDino",
    "Instance",
    "InstanceSegmenter",
    "NounSegmenter",
    "Owlv2",
    "resolve_segmenter",
]

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in whole pixels; right and bottom lie just outside."""

SEGMENTERS: dict[str, str] = {
    "toybox": "customvideo.toybox.judges:ToySegmenter",
    "grounding-dino": "customvideo.evaluation.instances:GroundingDino",
    "owlv2": "customvideo.evaluation.instances:Owlv2",
}
"""Name -> "module:class"; the class takes `model` as an encoder does, and `device` if it can work
elsewhere than on the CPU."""

_ENTRY_POINTS = "customvideo.finders"

_DETECTED = 0.25  # least score of a detection, Grounding DINO's own default
_SAME_THING = 0.8  # intersection over union from which two boxes show one thing
_SAME_PATCH = 0.5  # the same for OWLv2, whose every patch of the picture has a box of its own


@dataclass(frozen=True, eq=False)
class Instance:
    """One thing in a frame.

    Attributes:
        mask: bool (height, width), the frame's size; not empty.
        category: a noun such as `cat`, or "" from a finder that names nothing.
        score: how sure the finder is, in [0, 1].
    """

    mask: NDArray[np.bool_]
    category: str
    score: float

    def __post_init__(self) -> None:
        assert self.mask.dtype == np.bool_ and self.mask.ndim == 2 and self.mask.any()

    @property
    def box(self) -> Box:
        """The smallest box around the mask."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@runtime_checkable
class InstanceSegmenter(Protocol):
    """Finds single things."""

    def find(self, frames: Pictures) -> list[list[Instance]]:
        """The instances in each of `frames`, uint8 (n, height, width, 3), in any order."""
        ...


@runtime_checkable
class NounSegmenter(InstanceSegmenter, Protocol):
    """Finds what it is told to look for, and nothing before it is told."""

    def looking_for(self, nouns: Sequence[str]) -> InstanceSegmenter:
        """The same finder, told these categories."""
        ...


def resolve_segmenter(
    name: str, model: str | Path | None = None, device: str = "auto"
) -> InstanceSegmenter:
    """Make the finder called `name`, from `model` (a folder or a hub id) if one is given.

    `device` is as `load_backbone` takes it; a finder that knows no devices works on the CPU.

    Raises:
        EvaluationError: the name is unknown, or the model cannot be loaded.
    """
    rows = all_rows(SEGMENTERS, _ENTRY_POINTS)
    make = look_up(name, rows, "finder of subjects", EvaluationError)
    return cast(InstanceSegmenter, made_for(device, make, model=model))


class GroundingDino:
    """Grounding DINO (Liu et al. 2023): things by their nouns. Each box, filled, is a mask.

    A query's category is the noun whose tokens it answers most to. `model` is a folder or a hub id
    (safetensors only). Raises EvaluationError if it cannot be loaded.
    """

    DEFAULT = "IDEA-Research/grounding-dino-tiny"

    def __init__(
        self, model: str | Path | None = None, nouns: Sequence[str] = (), *, device: str = "auto"
    ) -> None:
        source = str(model or self.DEFAULT)
        network = load_pretrained(
            source, "AutoModelForZeroShotObjectDetection", use_safetensors=True
        )
        self.network = network.eval().to(placed(device))
        self.processor = load_pretrained(source, "AutoProcessor")
        self.nouns = _listed(nouns)

    def looking_for(self, nouns: Sequence[str]) -> GroundingDino:
        """The same network, told these categories."""
        told = copy.copy(self)
        told.nouns = _listed(nouns)
        return told

    def find(self, frames: Pictures) -> list[list[Instance]]:
        """All of the nouns in each of `frames`, uint8 (n, height, width, 3), surest first."""
        if not self.nouns:
            raise _untold("Grounding DINO")
        # One by one, so that no frame's result depends on its company.
        return [self._find(frame) for frame in frames]

    @torch.inference_mode()
    def _find(self, frame: NDArray[np.uint8]) -> list[Instance]:
        inputs = self.processor(images=frame, text=[list(self.nouns)], return_tensors="pt")
        outputs = self.network(**inputs.to(self.network.device))
        answers = outputs.logits[0].float().sigmoid().cpu()
        scores, nouns = self._per_noun(answers, inputs["input_ids"][0].cpu()).max(-1)
        boxes = _corners(outputs.pred_boxes[0].float().cpu(), frame.shape[:2])
        found = [
            Instance(_filled(boxes[query], frame.shape[:2]), self.nouns[nouns[query]], score)
            for query, score in enumerate(scores.tolist())
            if score >= _DETECTED
        ]
        return _distinct(found, _SAME_THING)

    def _per_noun(self, answers: Tensor, ids: Tensor) -> Tensor:
        """From (query, token) to (query, noun): each noun's most answered token.

        `ids` (token,) are those of `cat. dog.` between special tokens: full stops divide nouns.
        """
        tokenizer = self.processor.tokenizer
        stop = tokenizer.convert_tokens_to_ids(".")
        around = [stop, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id]
        spoken = ~torch.isin(ids, torch.tensor(around))
        noun = (ids == stop).cumsum(0)
        answers = answers[:, : len(ids)]
        return torch.stack(
            [answers[:, spoken & (noun == index)].amax(-1) for index in range(len(self.nouns))],
            dim=-1,
        )


class Owlv2:
    """OWLv2 (Minderer et al. 2023), the finder of MuDI: things by their nouns, as filled boxes.

    Each noun is asked for as `a photo of a cat`. `model` is a folder or a hub id (safetensors
    only). Raises EvaluationError if it cannot be loaded. Its stock processor needs SciPy or
    torchvision, so frames are padded, resized and normalised here in its manner; the filter that
    shrinks them differs.
    """

    DEFAULT = "google/owlv2-base-patch16-ensemble"

    def __init__(
        self, model: str | Path | None = None, nouns: Sequence[str] = (), *, device: str = "auto"
    ) -> None:
        source = str(model or self.DEFAULT)
        network = load_pretrained(source, "Owlv2ForObjectDetection", use_safetensors=True)
        self.network = network.eval().to(placed(device))
        self.tokenizer = load_pretrained(source, "CLIPTokenizer")
        self.nouns = _listed(nouns)

    def looking_for(self, nouns: Sequence[str]) -> Owlv2:
        """The same network, told these categories."""
        told = copy.copy(self)
        told.nouns = _listed(nouns)
        return told

    def find(self, frames: Pictures) -> list[list[Instance]]:
        """All of the nouns in each of `frames`, uint8 (n, height, width, 3), surest first."""
        if not self.nouns:
            raise _untold("OWLv2")
        return [self._find(frame) for frame in frames]

    @torch.inference_mode()
    def _find(self, frame: NDArray[np.uint8]) -> list[Instance]:
        config = self.network.config
        tokens = self.tokenizer(
            [f"a photo of {article(noun)} {noun}" for noun in self.nouns],
            padding="max_length",
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.network.device)
        pixels = _squared(frame, config.vision_config.image_size).to(self.network.device)
        outputs = self.network(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=pixels,
        )
        scores, nouns = outputs.logits[0].float().sigmoid().cpu().max(-1)
        sure = (scores >= _DETECTED).nonzero()[:, 0]
        # Boxes are shares of the padded square, whose upper left part the frame is.
        side = max(frame.shape[:2])
        shares = outputs.pred_boxes[0].float().cpu()[sure]
        scale = side / torch.tensor([frame.shape[1], frame.shape[0]]).repeat(2)
        found = [
            Instance(_filled(box, frame.shape[:2]), self.nouns[int(nouns[query])], score)
            for box, query, score in zip(
                _corners(shares * scale, frame.shape[:2]),
                sure.tolist(),
                scores[sure].tolist(),
                strict=True,
            )
        ]
        return _distinct(found, _SAME_PATCH)


def _squared(frame: NDArray[np.uint8], size: int) -> Tensor:
    """`frame` padded with black below or to the right to a square, as (1, 3, size, size)."""
    height, width = frame.shape[:2]
    square = torch.zeros(1, 3, max(height, width), max(height, width))
    square[0, :, :height, :width] = torch.from_numpy(frame / np.float32(255)).movedim(-1, 0)
    resized = F.interpolate(square, size=(size, size), mode="bilinear", antialias=True)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in CLIP_STATISTICS)
    return (resized - mean) / deviation


def _listed(nouns: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(noun.lower() for noun in nouns))


def _untold(name: str) -> EvaluationError:
    return EvaluationError(
        f"{name} was not told what to look for; give it categories first, with "
        "looking_for(['cat', 'dog'])."
    )


def _corners(boxes: Tensor, size: tuple[int, ...]) -> list[Box]:
    """Boxes (query, 4) as centre and extent, in shares of `size` (height, width), to pixels.

    Sides are rounded to whole pixels inside the frame; each box covers at least one.
    """
    height, width = size
    found = []
    for across, down, wide, tall in boxes.double().tolist():
        left, right = _span(across, wide, width)
        top, bottom = _span(down, tall, height)
        found.append((left, top, right, bottom))
    return found


def _span(centre: float, extent: float, length: int) -> tuple[int, int]:
    low = min(max(round((centre - extent / 2) * length), 0), length - 1)
    high = min(max(round((centre + extent / 2) * length), low + 1), length)
    return low, high


def _filled(box: Box, size: tuple[int, ...]) -> NDArray[np.bool_]:
    left, top, right, bottom = box
    mask = np.zeros(size, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def _distinct(found: Sequence[Instance], same: float) -> list[Instance]:
    """Surest first, without those that show a surer one's thing, under whatever name."""
    kept: list[Instance] = []
    for instance in sorted(found, key=lambda one: -one.score):
        if all(_overlap(instance.mask, other.mask) < same for other in kept):
            kept.append(instance)
    return kept


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())
