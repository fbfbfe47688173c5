"""For ComfyUI: a LoRA under the names of the model's first publication, and words as embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from customvideo.exports.lora import write_lora
from customvideo.exports.order import Exported, Order
from customvideo.exports.words import write_embeddings

__all__ = ["Comfyui"]


class Comfyui:
    """`loras` and `embeddings`, to be copied into the folders of the same names there."""

    def write(self, order: Order, folder: Path) -> Exported:
        """Write the LoRA, one file an expert, and each word as `embeddings/<name>.safetensors`."""
        written = write_lora(order, folder / "loras", order.stem)
        write_embeddings(order, folder / "embeddings")
        if order.rank == 0 and order.backbone.family == "wan":
            note = "Full matrices are for ComfyUI alone: diffusers passes over them in silence."
            return replace(written, notes=(note,))
        return written
