"""Stock diffusers pipelines that stand beside a backbone: found, loaded, frozen, lent a device.

What such a pipeline makes is the business of the modules beside this one: `animators` and
`reference_models`.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from PIL import Image, ImageOps
from safetensors import SafetensorError

from customvideo.backbones.folder import Card, digest_weights, quiet_loading, readme_licence
from customvideo.errors import ConfigError
from customvideo.files import expanded
from customvideo.quiet import without_warnings
from customvideo.records import parse_json
from customvideo.settings import suggest

__all__ = ["Lent", "PipelineKind", "as_bytes", "fitted", "fitted_clip"]


@dataclass(frozen=True)
class PipelineKind:
    """A class of pipelines, and what messages say of it.

    Attributes:
        called: what such a model is called: "animator".
        pipeline: the class's name.
        parts: folders that a saved one has at least.
        able: what no other class can: "can animate a picture".
        licences: hub id -> licence of the weights, as their makers state it.
    """

    called: str
    pipeline: str
    parts: tuple[str, ...]
    able: str
    licences: Mapping[str, str]

    def check(self, name: str, known: Collection[str]) -> None:
        """Refuse what is neither a folder of such a pipeline nor can be its hub id.

        Nothing is loaded or fetched. `known` are names that messages suggest.

        Raises:
            ConfigError: says which of the two `name` fails to be.
        """
        folder = expanded(name)
        if folder.is_dir():
            self._check_folder(folder)
        elif name.startswith((".", "~", "/", "\\")) or name.count("/") > 1 or folder.exists():
            raise ConfigError(
                f"There is no {self.called} folder '{name}': give a folder as "
                f"{self.pipeline}.save_pretrained writes it, or one of {', '.join(sorted(known))}."
            )
        elif "/" not in name:
            raise ConfigError(
                f"There is no {self.called} '{name}'{suggest(name, sorted(known))} A folder of a "
                f"{self.pipeline} will do, too, or its hub id."
            )

    def check_kept(self, name: str) -> None:
        """Refuse a name that an adapter's file would not keep.

        Raises:
            ConfigError: it is an absolute folder.
        """
        if expanded(name).is_absolute():
            raise ConfigError(
                f"The {self.called} folder '{name}' would not be found again, as an adapter's file "
                "keeps no absolute path: give it relative to the folder you work in."
            )

    def load(self, name: str, cls: Any, **options: Any) -> Any:
        """The pipeline, of the class `cls`, in the folder or with the hub id `name`.

        `options` go to its `from_pretrained`. Its licence is announced.

        Raises:
            ConfigError: it is of another kind, incomplete or cannot be fetched.
        """
        found = expanded(name)
        folder = found if found.is_dir() else self._fetched(name)
        self._check_folder(folder)
        try:
            with quiet_loading():
                pipeline = cls.from_pretrained(
                    folder,
                    # No other format, which might be a pickle.
                    use_safetensors=True,
                    local_files_only=True,
                    **options,
                )
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            raise ConfigError(
                f"The {self.called} folder '{folder}' cannot be loaded ({reason}): fetch a "
                "complete copy."
            ) from error
        Card(name, self.licences.get(name) or readme_licence(folder)).announce()
        return pipeline

    def _check_folder(self, folder: Path) -> None:
        try:
            index = parse_json((folder / "model_index.json").read_text(encoding="utf-8"))
            kind = index.get("_class_name", "nothing that says what it is")
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"The {self.called} folder '{folder}' has no readable model_index.json: give a "
                f"folder as {self.pipeline}.save_pretrained writes it."
            ) from error
        if kind != self.pipeline:
            raise ConfigError(
                f"The {self.called} folder '{folder}' holds {kind}: only a {self.pipeline} "
                f"{self.able}."
            )
        if missing := [part for part in self.parts if not (folder / part).is_dir()]:
            raise ConfigError(
                f"The {self.called} folder '{folder}' lacks {', '.join(missing)}: fetch a complete "
                "copy."
            )

    def _fetched(self, name: str) -> Path:
        try:
            with without_warnings("diffusers", "huggingface_hub"):
                return Path(DiffusionPipeline.download(name, use_safetensors=True))
        except Exception as error:  # the hub client's network errors share no base class
            raise ConfigError(
                f"The {self.called} '{name}' is no folder here and could not be fetched from the "
                "Hugging Face hub: check the name and the connection, or download it elsewhere and "
                "give its folder."
            ) from error


class Lent:
    """A pipeline, frozen, on one device while it works and else in main memory, so that it takes
    no room from what is trained meanwhile.

    `name` is what it was loaded by.
    """

    networks: ClassVar[tuple[str, ...]]
    """The pipeline's attributes whose weights tell it apart; one that is None counts for nothing.
    """

    def __init__(self, pipeline: Any, name: str, device: torch.device) -> None:
        self.pipeline, self.name, self._device = pipeline, name, device
        pipeline.set_progress_bar_config(disable=True)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 hex that tells the networks apart from others, whatever type they are kept in."""
        found = {name: getattr(self.pipeline, name) for name in self.networks}
        return digest_weights({name: part for name, part in found.items() if part is not None})

    @contextmanager
    def _working(self) -> Iterator[None]:
        """On the device inside."""
        self._move(self._device)
        try:
            with warnings.catch_warnings():
                # diffusers hands tensors to numpy in a way that numpy 2 finds old-fashioned.
                warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
                yield
        finally:
            self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        with without_warnings("diffusers"):
            self.pipeline.to(device)


def as_bytes(frames: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colours in [0, 1] as uint8, the same axes."""
    pixels: NDArray[np.uint8] = (frames * 255).round().clip(0, 255).astype(np.uint8)
    return pixels


def fitted(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """`picture` (h, w, 3) scaled to cover `size` = (height, width) and cropped to its middle."""
    if picture.shape[:2] == size:
        return picture
    height, width = size
    whole = Image.fromarray(picture)
    return np.asarray(ImageOps.fit(whole, (width, height), Image.Resampling.LANCZOS))


def fitted_clip(clip: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Every frame of `clip` (frame, h, w, 3) as `fitted` makes it."""
    return np.stack([fitted(frame, size) for frame in clip])
