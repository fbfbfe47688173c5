"""Under the names of kohya's trainers: a LoRA with `.alpha`, and words as ComfyUI's embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from customvideo.exports.lora import write_lora
from customvideo.exports.order import Exported, Order
from customvideo.exports.words import write_embeddings

__all__ = ["Kohya"]


class Kohya:
    """`loras` for programs that read kohya's files, `embeddings` for ComfyUI."""

    def write(self, order: Order, folder: Path) -> Exported:
        """Write the LoRA, one file an expert, and each word as `embeddings/<name>.safetensors`."""
        written = write_lora(order, folder / "loras", order.stem)
        write_embeddings(order, folder / "embeddings")
        if order.backbone.family != "wan":
            return written
        note = (
            "diffusers cannot read kohya's names for Wan unless every layer of every block is "
            "there; for diffusers export to diffusers."
        )
        return replace(written, notes=(note,))
