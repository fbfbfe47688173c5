"""What is customized: a subject, which is checked once, when it is made; nothing downstream checks
it again. How folders become subjects is `customvideo.subjects.folders`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from customvideo.errors import PromptError, SubjectError
from customvideo.subjects.clips import Clip
from customvideo.subjects.groups import GroupPhoto, add_photo
from customvideo.subjects.masks import check_mask
from customvideo.subjects.pictures import SHORTEST_SIDE
from customvideo.subjects.prompt import LearnedWord, check_category, check_name

__all__ = ["Subject"]


@dataclass(frozen=True, eq=False)
class Subject:
    """One particular cat, toy or teapot: its word and its photos with their masks.

    Attributes:
        name: the bare name, `tom`.
        word: the learned word, always `<tom>`.
        category: a noun the base model knows, `cat`.
        images: photos, each uint8 (height, width, 3), RGB; sizes may differ between photos.
        masks: one per photo, each float32 (height, width) in [0, 1]; 1 is the subject.
        files: one file name per photo, for messages and overlays.
        captions: one text per photo with the word in it, "" for a photo without; or none at all.
        together: photos that show this subject and others, the same objects as those others have.
        clips: moving pictures of it; some of their frames are among `images`.

    Raises:
        PromptError: the name or category is unusable.
        SubjectError: photos and masks are missing, mismatched, too small, empty or full.
    """

    name: str
    word: str
    category: str
    images: tuple[NDArray[np.uint8], ...]
    masks: tuple[NDArray[np.float32], ...]
    files: tuple[str, ...]
    captions: tuple[str, ...] = ()
    together: tuple[GroupPhoto, ...] = ()
    clips: tuple[Clip, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        check_category(self.category)
        if self.word != f"<{self.name}>":
            raise PromptError(
                f"The word of subject '{self.name}' must be '<{self.name}>', not '{self.word}'."
            )
        if not self.images or not len(self.images) == len(self.masks) == len(self.files):
            raise SubjectError(
                f"Subject '{self.name}' has {len(self.images)} images, {len(self.masks)} masks "
                f"and {len(self.files)} file names; give at least one image and one of each per "
                "image."
            )
        if self.captions and len(self.captions) != len(self.images):
            raise SubjectError(
                f"Subject '{self.name}' has {len(self.images)} images and {len(self.captions)} "
                "captions; give one a picture, or none."
            )
        for image, mask, file in zip(self.images, self.masks, self.files, strict=True):
            _check_image(image, f"'{file}' of subject '{self.name}'")
            check_mask(mask, image, f"the mask of '{file}' of subject '{self.name}'")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all pixels, masks and captions, as hexadecimal: what something was made of."""
        sha = hashlib.sha256()
        for image, mask in zip(self.images, self.masks, strict=True):
            add_photo(sha, image, [mask])
        # What is not there adds nothing, so that plain photos keep the digest they always had.
        if any(self.captions):
            sha.update(repr(self.captions).encode())
        for photo in self.together:
            sha.update(repr((*photo.masks, photo.caption)).encode())
            add_photo(sha, photo.image, list(photo.masks.values()))
        for clip in self.clips:
            sha.update(repr((clip.frames.shape, clip.fps, clip.caption)).encode())
            sha.update(clip.frames.data)
            sha.update(clip.masks.data)
        return sha.hexdigest()

    @property
    def learned(self) -> LearnedWord:
        """The word as prompts know it, of one vector."""
        return LearnedWord(self.name, self.category)


def _check_image(image: NDArray[np.uint8], label: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise SubjectError(
            f"{label} is {image.dtype} {image.shape}; give uint8 (height, width, 3)."
        )
    if min(image.shape[:2]) < SHORTEST_SIDE:
        raise SubjectError(
            f"{label} is only {image.shape[1]}x{image.shape[0]} pixels; use at least "
            f"{SHORTEST_SIDE}x{SHORTEST_SIDE}."
        )
