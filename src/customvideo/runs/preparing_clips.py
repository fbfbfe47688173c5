"""Clips on the way to a tidy folder: followed as training will, drawn for the page, and copied.

Photos are `customvideo.runs.preparing`'s; how clips are read and masks followed is
`customvideo.subjects.clips`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from customvideo.errors import SubjectError
from customvideo.report import picture_uri
from customvideo.subjects.clips import Clip, list_clips, picked, read_films, still_name
from customvideo.subjects.masks import Segmenter
from customvideo.subjects.pictures import list_pictures
from customvideo.subjects.prompt import LearnedWord
from customvideo.subjects.sorting import LeftOut, Sorted
from customvideo.subjects.subject import Subject
from customvideo.video import Video

__all__ = ["TidyClip", "clip_facts", "seen_in", "shown_clip", "tidy_clips"]

_DRAWN = 8  # frames of a clip on the page
_SIDE = 480


@dataclass(frozen=True, eq=False)
class TidyClip:
    """One clip of a tidy folder.

    Attributes:
        file: its name there.
        source: the file it is a copy of.
        clip: what was understood of it.
        first: the mask of its first frame, if somebody drew one.
    """

    file: str
    source: Path
    clip: Clip
    first: Path | None = None

    def files(self) -> dict[str, bytes]:
        """Its files in the folder by their relative names."""
        stem = Path(self.file).stem
        found = {self.file: self.source.read_bytes()}
        if self.first is not None:
            found[f"masks/{stem}{self.first.suffix}"] = self.first.read_bytes()
        caption = self.source.with_suffix(".txt")
        if self.clip.caption:
            found[f"{stem}.txt"] = caption.read_bytes()
        return found


def tidy_clips(
    folder: Path, word: LearnedWord, names: Mapping[str, str], segment: Segmenter, found: Sorted
) -> list[TidyClip]:
    """The clips of `folder` that can be used, followed; why the others cannot goes to `found`.

    `names` has each file's tidy name, whose suffix does not count.
    """
    inside = folder / "masks"
    masks = {one.stem.casefold(): one for one in (list_pictures(inside) if inside.is_dir() else ())}
    clips = []
    for path in list_clips(folder):
        try:
            (film,) = read_films([path], masks)
            if film.still is not None:
                found.left_out.append(LeftOut(path.name, "is a gif of one frame; save it as png"))
                continue
            clip = film.followed(word, segment)
        except SubjectError as error:
            found.left_out.append(LeftOut(path.name, f"cannot be used: {error}"))
            continue
        file = Path(names[path.name]).with_suffix(path.suffix.lower()).name
        clips.append(TidyClip(file, path, clip, masks.get(path.stem.casefold())))
    return clips


def seen_in(clips: Sequence[TidyClip], word: LearnedWord) -> Subject:
    """The subject as some of its clips' frames show it."""
    stills = [(one.clip, frame) for one in clips for frame in picked(one.clip, 2)]
    return Subject(
        word.name,
        word.word,
        word.category,
        images=tuple(clip.frames[frame] for clip, frame in stills),
        masks=tuple(clip.masks[frame] / np.float32(255) for clip, frame in stills),
        files=tuple(still_name(clip, frame) for clip, frame in stills),
    )


def clip_facts(one: TidyClip) -> dict[str, Any]:
    """What is known of a clip, JSON-ready."""
    clip, shares = one.clip, (one.clip.masks >= 128).mean(axis=(1, 2))
    count, height, width = clip.masks.shape
    return {
        "file": one.file,
        "source": one.source.name,
        "frames": count,
        "fps": round(clip.fps, 3),
        "width": width,
        "height": height,
        "in_sight": round(float(clip.seen.mean()), 3),
        "coverage": round(float(shares.mean()), 4),
        "mask": "given" if one.first is not None else "made",
        "caption": clip.caption,
    }


def shown_clip(one: TidyClip) -> dict[str, Any]:
    """The same for the page, with some frames under their masks."""
    drawn = one.clip.drawn()
    places = np.linspace(0, len(drawn) - 1, min(_DRAWN, len(drawn))).round().astype(int)
    sheet = Video(drawn.frames[places], drawn.fps).sheet()
    facts = clip_facts(one)
    return facts | {
        "image": picture_uri(sheet, _SIDE),
        "seconds": f"{facts['frames'] / facts['fps']:.1f}",
        "in_sight": f"{facts['in_sight']:.0%}",
        "coverage": f"{facts['coverage']:.0%}",
    }
