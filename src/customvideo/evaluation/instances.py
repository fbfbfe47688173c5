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

from customvideo.errors import EvaluationError
from customvideo.evaluation.encoders import Pictures, load_pretrained, made_for, placed
from customvideo.tables import all_rows, look_up

__all__ = [
    "SEGMENTERS",
    "GroundingDino",
    "Instance",
    "InstanceSegmenter",
    "NounSegmenter",
    "resolve_segmenter",
]

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in whole pixels; right and bottom lie just outside."""

SEGMENTERS: dict[str, str] = {
    "toybox": "customvideo.toybox.judges:ToySegmenter",
    "grounding-dino": "customvideo.evaluation.instances:GroundingDino",
}
"""Name -> "module:class"; the class takes `model` as an encoder does, and `device` if it can work
elsewhere than on the CPU."""

_ENTRY_POINTS = "customvideo.finders"

_DETECTED = 0.25  # least score of a detection, Grounding DINO's own default
_SAME_THING = 0.8  # intersection over union from which two boxes show one thing


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
        self.nouns = tuple(dict.fromkeys(noun.lower() for noun in nouns))

    def looking_for(self, nouns: Sequence[str]) -> GroundingDino:
        """The same network, told these categories."""
        told = copy.copy(self)
        told.nouns = tuple(dict.fromkeys(noun.lower() for noun in nouns))
        return told

    def find(self, frames: Pictures) -> list[list[Instance]]:
        """All of the nouns in each of `frames`, uint8 (n, height, width, 3), surest first."""
        if not self.nouns:
            raise EvaluationError(
                "Grounding DINO was not told what to look for; give it categories first, with "
                "looking_for(['cat', 'dog'])."
            )
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
        return _distinct(found)

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


def _distinct(found: Sequence[Instance]) -> list[Instance]:
    """Surest first, without those that show a surer one's thing, under whatever name."""
    kept: list[Instance] = []
    for instance in sorted(found, key=lambda one: -one.score):
        if all(_overlap(instance.mask, other.mask) < _SAME_THING for other in kept):
            kept.append(instance)
    return kept


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())
