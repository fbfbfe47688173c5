"""Words alone, as diffusers' textual inversion for CLIP text encoders."""

from __future__ import annotations

from pathlib import Path

from customvideo.exports.order import Exported, Order
from customvideo.exports.words import write_inversion

__all__ = ["TextualInversion"]

FILE = "learned_embeds.safetensors"
"""What `load_textual_inversion` looks for in a folder."""


class TextualInversion:
    """A folder a word, as `load_textual_inversion` takes it."""

    def write(self, order: Order, folder: Path) -> Exported:
        """Write `<name>/learned_embeds.safetensors` for each word."""
        for word in order.adapter.words:
            write_inversion(order, folder / word.name / FILE, word.name)
        return Exported()
