"""SAM 2 on clips: the memory of the stock video model carries one frame's mask to all others.

What it starts from is `customvideo.subjects.segmenters.Sam2`'s own mask of a single frame. Its
stock processor needs torchvision, so frames are resized and normalised here as it does, each when
its turn comes: a clip at the model's size would fill the memory.

Axes: frame, height, width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["follow"]

Mask = NDArray[np.float32]


class _Prepared(dict[int, Tensor]):
    """A clip as the model's session holds it, made frame by frame as it is asked for."""

    def __init__(self, frames: NDArray[np.uint8], prepare: Any) -> None:
        super().__init__()
        self._frames, self._prepare = frames, prepare

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Tensor:
        found: Tensor = self._prepare(self._frames[index])[0]
        return found


def follow(network: Any, frames: NDArray[np.uint8], key: int, mask: Mask, prepare: Any) -> Mask:
    """Soft masks (frame, height, width) in [0, 1] of what `mask` marks in frame `key`.

    Args:
        network: a `Sam2VideoModel`.
        frames: uint8 (frame, height, width, 3).
        key: a frame's number.
        mask: float32 (height, width) in [0, 1].
        prepare: from a frame to what the network reads, (1, 3, height, width).
    """
    found = np.zeros(frames.shape[:3], np.float32)
    for reverse in (False, True):
        # Each way with a memory of its own, which begins at the key.
        session = _session(network, frames, prepare)
        size = prepare(frames[key]).shape[-2:]
        given = functional.interpolate(torch.from_numpy(mask)[None, None], size, mode="bilinear")
        session.obj_id_to_idx(1)
        session.add_mask_inputs(0, key, (given >= 0.5).float())
        session.obj_with_new_inputs = [1]
        network(session, frame_idx=key)
        for output in network.propagate_in_video_iterator(
            session, start_frame_idx=key, reverse=reverse
        ):
            logits = functional.interpolate(
                output.pred_masks.float().cpu(), frames.shape[1:3], mode="bilinear"
            )
            found[output.frame_idx] = logits[0, 0].sigmoid().numpy()
    return found


def _session(network: Any, frames: NDArray[np.uint8], prepare: Any) -> Any:
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    session = Sam2VideoInferenceSession(
        video_height=frames.shape[1],
        video_width=frames.shape[2],
        inference_device=network.device,
        dtype=torch.float32,
    )
    session.processed_frames = _Prepared(frames, prepare)
    return session
