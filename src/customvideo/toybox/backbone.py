"""The shipped toybox model as an ordinary backbone: a folder and a card, nothing of its own."""

from __future__ import annotations

import json
from pathlib import Path

from customvideo.backbones.folder import Card
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.errors import BackboneError
from customvideo.toybox.models import FPS, FRAMES, SIZE

WEIGHTS = Path(__file__).parent / "weights"


def load(device: str = "auto", dtype: str = "auto") -> UNet3D:
    """Load the toybox: 8 frames of 64x96 at 8 frames a second.

    Raises:
        BackboneError: the installation lacks the weights.
    """
    if not (WEIGHTS / "model" / "model_index.json").exists():
        raise BackboneError(
            f"The toybox weights are missing from this installation ({WEIGHTS.name}/model): "
            "install the package again, or make them with 'customvideo toybox pretrain'."
        )
    words = json.loads((WEIGHTS / "words.json").read_text(encoding="utf-8"))
    card = Card(
        name="toybox",
        licence="apache-2.0",
        fps=FPS,
        frames=FRAMES,
        size=SIZE,
        known_nouns=frozenset(words["nouns"]),
        known_words=frozenset(words["words"]),
        shipped_prior=WEIGHTS / "prior.safetensors",
    )
    return load_folder(WEIGHTS / "model", device, dtype, card)
