"""A subject's clips: read from its folder, its mask followed through them, frames picked as photos.

A clip is to a subject what a photo is, and moves besides. Which files are clips, and how much of
one is read, is said here; how codecs and times work is `customvideo.reels`, how a mask is followed
`customvideo.subjects.tracking`, which frames are picked `customvideo.subjects.picking`.

Axes: frame, height, width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from customvideo.errors import SubjectError, UserError
from customvideo.reels import KINDS, Limits, Reel, read_clip
from customvideo.subjects.captions import read_caption
from customvideo.subjects.masks import Segmenter, check_mask, overlay
from customvideo.subjects.picking import pick_frames
from customvideo.subjects.pictures import SHORTEST_SIDE, Picture, read_mask
from customvideo.subjects.prompt import LearnedWord
from customvideo.subjects.tracking import track
from customvideo.video import Video

__all__ = ["PER_CLIP", "Clip", "Film", "list_clips", "picked", "read_films", "still_name"]

PER_CLIP = 4
"""Frames of a clip that serve as photos, unless somebody says otherwise."""

_LIMITS = Limits()
_SEEN = 0.001  # share of a frame from which the subject is in it
_FEWEST = 0.25  # share of a clip's frames that the subject must be in
_SHOWN = 48  # frames of a drawn clip


@dataclass(frozen=True, eq=False)
class Clip:
    """A moving picture of one subject.

    Attributes:
        frames: uint8 (frame, height, width, 3), at least two.
        masks: uint8 (frame, height, width), 255 is the subject; all 0 in a frame without it.
        fps: frames a second.
        file: the file's name, for messages and overlays.
        caption: a text with the subject's word in it, or "".

    Raises:
        SubjectError: frames and masks do not belong together, or show nothing.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    fps: float
    file: str
    caption: str = ""

    def __post_init__(self) -> None:
        Video(self.frames, self.fps)
        if self.masks.shape != self.frames.shape[:3] or self.masks.dtype != np.uint8:
            raise SubjectError(
                f"The masks of '{self.file}' are {self.masks.dtype} {self.masks.shape}, its frames "
                f"{self.frames.shape}; give uint8 masks, one a frame, of the frames' size."
            )
        if len(self.frames) < 2 or min(self.frames.shape[1:3]) < SHORTEST_SIDE:
            raise SubjectError(
                f"'{self.file}' has {len(self.frames)} frames of {self.frames.shape[2]}x"
                f"{self.frames.shape[1]} pixels; use at least 2 of {SHORTEST_SIDE}x{SHORTEST_SIDE}."
            )
        if not self.seen.any():
            raise SubjectError(
                f"The masks of '{self.file}' are empty; white marks the subject and black the rest."
            )

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which frames show the subject (frame,)."""
        return np.asarray((self.masks >= 128).mean(axis=(1, 2)) >= _SEEN)

    def drawn(self) -> Video:
        """The masks over the frames, for people to judge; a long clip is thinned."""
        step = -(-len(self.frames) // _SHOWN)
        pairs = zip(self.frames[::step], self.masks[::step], strict=True)
        pictures = [overlay(frame, mask / np.float32(255)) for frame, mask in pairs]
        return Video(np.stack(pictures), max(1.0, self.fps / step))


@dataclass(frozen=True, eq=False)
class Film:
    """A clip's file, read; its mask is not followed yet.

    Attributes:
        path: the file.
        reel: what was in it.
        first: the mask of the first frame float32 (height, width), if there is a file of it.
    """

    path: Path
    reel: Reel
    first: NDArray[np.float32] | None = None

    @property
    def still(self) -> Picture | None:
        """The only frame, as a picture; None of a film that moves."""
        if len(self.reel.video) > 1:
            return None
        frame, alpha = self.reel.video.frames[0], self.reel.alpha
        weights = None if alpha is None else alpha[0].astype(np.float32) / np.float32(255)
        return Picture(self.path, frame, weights, self.reel.size, self.reel.size)

    def followed(self, word: LearnedWord, segment: Segmenter) -> Clip:
        """The clip with the subject's mask in every frame.

        Raises:
            SubjectError: the subject is found in too few frames, or the caption cannot be used.
        """
        masks = self._masks(word.category, segment)
        shown = ((masks >= 0.5).mean(axis=(1, 2)) >= _SEEN).mean()
        if shown < _FEWEST:
            raise SubjectError(
                f"The {word.category} was found in only {shown:.0%} of '{self.path}'; draw the "
                f"mask of its first frame as masks/{self.path.stem}.png, choose another segmenter, "
                "or remove it."
            )
        small = (masks * 255).round().astype(np.uint8)
        caption = read_caption(self.path, [word])
        video = self.reel.video
        return Clip(video.frames, small, video.fps, self.path.name, caption)

    def _masks(self, category: str, segment: Segmenter) -> NDArray[np.float32]:
        if self.reel.alpha is not None and self.first is None:
            return self.reel.alpha.astype(np.float32) / np.float32(255)
        return track(self.reel.video.frames, category, segment, self.first)


def list_clips(folder: Path) -> list[Path]:
    """The clips directly in `folder`, by file name; hidden files are skipped."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in KINDS and not path.name.startswith(".") and path.is_file()
    )


def read_films(paths: Sequence[Path], masks: Mapping[str, Path]) -> tuple[Film, ...]:
    """Read clips, and the masks of their first frames, by stem in lower case.

    Raises:
        SubjectError: one is damaged, too small, or has a mask that does not fit.
    """
    return tuple(_read(path, masks.get(path.stem.casefold())) for path in paths)


def still_name(clip: Clip, frame: int) -> str:
    """What a picked frame is called among the photos' files."""
    file = Path(clip.file)
    return f"{file.stem}-{frame:04d}{file.suffix}"


def picked(clip: Clip, count: int) -> list[int]:
    """The frames of `clip` that serve as photos, `count` at the most."""
    shares = (clip.masks >= 128).mean(axis=(1, 2))
    # A subject that is just coming in, or fills everything, is no photo of it.
    usable = clip.seen & (shares >= 0.3 * np.median(shares[clip.seen])) & (shares < 0.98)
    return pick_frames(clip.frames, count, usable if usable.any() else clip.seen)


def _read(path: Path, mask: Path | None) -> Film:
    try:
        reel = read_clip(path, _LIMITS)
    except UserError as error:
        raise SubjectError(str(error)) from error
    height, width = reel.video.size
    if min(height, width) < SHORTEST_SIDE:
        raise SubjectError(
            f"'{path}' is only {width}x{height} pixels; use a clip of at least "
            f"{SHORTEST_SIDE}x{SHORTEST_SIDE}."
        )
    if mask is None:
        return Film(path, reel)
    return Film(path, reel, _first_mask(mask, path, reel))


def _first_mask(mask: Path, path: Path, reel: Reel) -> NDArray[np.float32]:
    """The mask file of a clip's first frame, at the size the frame was read at."""
    size = reel.size
    frame = reel.video.frames[0]
    drawn = read_mask(mask, Picture(path, frame, None, size, size))
    fitted = Image.fromarray(drawn).resize((frame.shape[1], frame.shape[0]))
    return check_mask(np.asarray(fitted, np.float32), frame, f"the mask '{mask}'")
