"""The models that look at frames for the metrics, and the table of those known by name.

An encoder turns pictures (and texts) into unit vectors, nothing more; what is done with them is
`customvideo.evaluation.metrics`. Pictures are prepared here with Pillow, by the published recipe
of each model, so that a number depends on no other library's defaults.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from customvideo.errors import EvaluationError
from customvideo.quiet import without_bars, without_warnings
from customvideo.tables import all_rows, look_up

__all__ = [
    "CLIP_STATISTICS",
    "ENCODERS",
    "ClipEncoder",
    "DinoEncoder",
    "Dinov2Encoder",
    "Dinov3Encoder",
    "ImageEncoder",
    "TextImageEncoder",
    "load_pretrained",
    "made_for",
    "placed",
    "prepare_pictures",
    "resolve_encoder",
]

Pictures = NDArray[np.uint8]
"""Axes (n, height, width, 3), red, green, blue."""

ENCODERS: dict[str, str] = {
    "clip": "customvideo.evaluation.encoders:ClipEncoder",
    "dino": "customvideo.evaluation.encoders:DinoEncoder",
    "dinov2": "customvideo.evaluation.encoders:Dinov2Encoder",
    "dinov3": "customvideo.evaluation.encoders:Dinov3Encoder",
    "toybox-clip": "customvideo.toybox.judges:ToyClip",
    "toybox-dino": "customvideo.toybox.judges:ToyDino",
}
"""Name -> "module:class"; the class takes `model` (a folder, a hub id, or None for its own), and
`device` if it can work elsewhere than on the CPU."""

_ENTRY_POINTS = "customvideo.encoders"

_DINO_SIZE = 224
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation per channel of pixels in [0, 1]."""

CLIP_STATISTICS: Statistics = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
_IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@runtime_checkable
class ImageEncoder(Protocol):
    """Sees pictures."""

    def encode_images(self, images: Pictures) -> Tensor:
        """uint8 (n, height, width, 3) to unit vectors, float32 (n, dim)."""
        ...


@runtime_checkable
class TextImageEncoder(ImageEncoder, Protocol):
    """Sees pictures and reads texts into one space."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit vectors, float32 (n, dim)."""
        ...


class ClipEncoder:
    """CLIP (Radford et al. 2021), by default ViT-B/32 as OpenAI trained it.

    Pictures: shorter side to the model's size, bicubic, centre crop, OpenAI's mean and deviation.
    `model` is a folder or a hub id, `device` as `load_backbone` takes it. Raises EvaluationError if
    it cannot be loaded.
    """

    DEFAULT = "openai/clip-vit-base-patch32"

    def __init__(
        self, model: str | Path | None = None, *, batch_size: int = 32, device: str = "auto"
    ) -> None:
        source = str(model or self.DEFAULT)
        self.batch_size = batch_size
        self.device = placed(device)
        self.model = load_pretrained(source, "CLIPModel").to(self.device).eval()
        self.tokenizer = load_pretrained(source, "CLIPTokenizer")

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts, cut at the model's length, to unit vectors (n, dim)."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        ).to(self.device)
        pooled = self.model.text_model(**tokens).pooler_output
        return _unit(self.model.text_projection(pooled))

    @torch.no_grad()
    def encode_images(self, images: Pictures) -> Tensor:
        """uint8 (n, height, width, 3) to unit vectors (n, dim)."""
        size = self.model.config.vision_config.image_size
        features = []
        for part in _batches(images, self.batch_size):
            pixels = prepare_pictures(part, size, size, CLIP_STATISTICS).to(self.device)
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
            features.append(_unit(self.model.visual_projection(pooled)))
        return torch.cat(features)


class DinoEncoder:
    """DINO (Caron et al. 2021), by default ViT-S/16; the feature is the last class token.

    Pictures: shorter side to 256 (for a 224 model), bicubic, centre crop, ImageNet's mean and
    deviation. `model` is a folder or a hub id, of DINO or a successor whose first token is the
    class token (DINOv2, DINOv3); `device` as `load_backbone` takes it. Raises EvaluationError if it
    cannot be loaded.
    """

    DEFAULT = "facebook/dino-vits16"

    def __init__(
        self, model: str | Path | None = None, *, batch_size: int = 32, device: str = "auto"
    ) -> None:
        self.batch_size = batch_size
        self.device = placed(device)
        source = str(model or self.DEFAULT)
        self.model = _vision_transformer(source).to(self.device).eval()

    @torch.no_grad()
    def encode_images(self, images: Pictures) -> Tensor:
        """uint8 (n, height, width, 3) to unit vectors (n, dim)."""
        # Larger sizes are those a model was trained at last (DINOv2: 518), not published at.
        size = min(self.model.config.image_size, _DINO_SIZE)
        features = []
        for part in _batches(images, self.batch_size):
            pixels = prepare_pictures(part, round(size * 256 / 224), size, _IMAGENET_STATISTICS).to(
                self.device
            )
            features.append(_unit(self.model(pixel_values=pixels).last_hidden_state[:, 0]))
        return torch.cat(features)


class Dinov2Encoder(DinoEncoder):
    """DINOv2 (Oquab et al. 2023), by default ViT-S/14; pictures as its own processor cuts them."""

    DEFAULT = "facebook/dinov2-small"


class Dinov3Encoder(DinoEncoder):
    """DINOv3 (Siméoni et al. 2025), by default ViT-S/16; pictures as for DINO.

    Its weights are gated on the hub: accept their licence there, or give a folder.
    """

    DEFAULT = "facebook/dinov3-vits16-pretrain-lvd1689m"


def prepare_pictures(
    images: Pictures,
    shorter: int,
    crop: int,
    statistics: Statistics,
) -> Tensor:
    """Resize the shorter side to `shorter` (bicubic), crop the centre, standardise.

    uint8 (n, height, width, 3) to float32 (n, 3, crop, crop); `statistics` is (mean, deviation)
    per channel of pixels in [0, 1]. Rounds as torchvision does, whose results were published.
    """
    pictures = np.stack([_resize_and_crop(image, shorter, crop) for image in images])
    pixels = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in statistics)
    return (pixels - mean) / deviation


def resolve_encoder(name: str, model: str | Path | None = None, device: str = "auto") -> Any:
    """Make the encoder called `name`, from `model` (a folder or a hub id) if one is given.

    `device` is as `load_backbone` takes it; an encoder that knows no devices works on the CPU.

    Raises:
        EvaluationError: the name is unknown, or the model cannot be loaded.
    """
    factory = look_up(name, all_rows(ENCODERS, _ENTRY_POINTS), "encoder", EvaluationError)
    return made_for(device, factory, model=model)


def made_for(device: str, factory: Any, **options: Any) -> Any:
    """What `factory` makes with `options`, on `device` if it knows devices."""
    if "device" in inspect.signature(factory).parameters:
        options["device"] = device
    return factory(**options)


def placed(device: str) -> torch.device:
    """The torch device meant; `auto` is CUDA where there is one."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if device == "auto" else device)


def load_pretrained(source: str, class_name: str, **options: Any) -> Any:
    """What transformers' class of this name loads from `source`, networks in float32.

    Raises:
        EvaluationError: `source` is neither a folder that holds one nor can it be fetched.
    """
    if "Model" in class_name:
        options["dtype"] = torch.float32
        if Path(source).is_dir():
            # Somebody's folder: no other format, which might be a pickle.
            options.setdefault("use_safetensors", True)
    try:
        with without_bars(), without_warnings("huggingface_hub"):
            cls = getattr(import_module("transformers"), class_name)
            return cls.from_pretrained(source, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if Path(source).is_dir():
            raise EvaluationError(
                f"The folder '{source}' holds no {class_name} that can be loaded; give a folder "
                "written by transformers' save_pretrained."
            ) from error
        raise EvaluationError(
            f"The evaluation model '{source}' is neither a folder here nor could it be fetched; "
            "go online once, or give a folder that holds it."
        ) from error


def _vision_transformer(source: str) -> Any:
    """The network of `source`, whichever of the DINO family it is."""
    config = load_pretrained(source, "AutoConfig")
    # DINO's own class would add a pooling layer that the weights do not have.
    if config.model_type == "vit":
        return load_pretrained(source, "ViTModel", add_pooling_layer=False)
    return load_pretrained(source, "AutoModel")


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1).cpu()


def _batches(images: Pictures, size: int) -> Iterator[Pictures]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _resize_and_crop(image: NDArray[np.uint8], shorter: int, crop: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    least = min(height, width)
    # The longer side is cut to whole pixels, the crop's corner is rounded.
    size = (int(shorter * width / least), int(shorter * height / least))
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))
