"""The shelf: a project's subjects and their photos, in the very folders that training reads.

    subjects/<name>/001.jpg, masks/001.png    upright, without metadata; white is the subject
    subjects/<name>/subject.toml              word and category
    subjects/<name>/.photos.json              what was noted about the photos
    subjects/<name>/.overlays/001.jpg         the masks drawn over them

Photos from strangers are decoded elsewhere (`uploads`); what is doubtful about them is `doubts`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from customvideo.errors import StorageError, SubjectError
from customvideo.files import atomic_folder, ensure_dir, write_bytes, write_text
from customvideo.subjects.masks import check_mask, overlay, resolve_segmenter
from customvideo.subjects.pictures import list_pictures, read_mask, read_picture
from customvideo.subjects.prompt import check_category, check_name
from customvideo.workspace.doubts import photo_doubts, subject_doubts
from customvideo.workspace.places import SUBJECTS, inside, read_json, write_json
from customvideo.workspace.projects import Projects
from customvideo.workspace.records import Added, Discarded, Photo, StoredSubject
from customvideo.workspace.trash import Trash
from customvideo.workspace.uploads import (
    Decoded,
    Refused,
    Upload,
    decode_clip,
    decode_mask,
    decode_photos,
)

__all__ = ["MOST_PHOTOS", "Shelf"]

MOST_PHOTOS = 64
"""Of one subject."""
_NOTES, _OVERLAYS, _MASKS, _SETTINGS = ".photos.json", ".overlays", "masks", "subject.toml"
_QUALITY = 95
_EMPTY: dict[str, Any] = {"next": 1, "photos": {}}

Tell = Callable[[int, int], None]
"""Told how many photos are done, of how many."""


class Shelf:
    """The subjects of one project."""

    def __init__(self, root: Path, project: str, projects: Projects, trash: Trash) -> None:
        self._root, self._project = root, project
        self._projects, self._trash = projects, trash

    def list(self) -> tuple[StoredSubject, ...]:
        """The subjects, in the project's order; those that cannot be read are left out."""
        found: list[StoredSubject] = []
        for name in self._order():
            with suppress(StorageError, SubjectError):
                found.append(self.get(name))
        return tuple(found)

    def get(self, name: str) -> StoredSubject:
        """The subject called `name`. Raises StorageError if there is none."""
        folder = self._require(name)
        notes = self._notes(folder)
        photos = tuple(self._photo(folder, path, notes) for path in list_pictures(folder))
        category = self._order()[name] or str(notes.get("category", ""))
        return StoredSubject(name, category, folder, photos, subject_doubts(photos))

    def add(self, name: str, category: str) -> StoredSubject:
        """Begin a subject without photos.

        Raises:
            PromptError: the name or category is unusable.
            StorageError: there is one already.
        """
        check_name(name), check_category(category)
        folder = self._folder(name)
        if folder.exists():
            raise StorageError(f"There is a <{name}> in this project already; choose another name.")
        with atomic_folder(folder) as partial:
            write_json(partial / _NOTES, {**_EMPTY, "category": category})
            write_text(partial / _SETTINGS, _settings(name, category))
        self._reordered({**self._order(), name: category})
        return self.get(name)

    def set_category(self, name: str, category: str) -> StoredSubject:
        """Say that a subject is something else."""
        check_category(category)
        folder = self._require(name)
        with self._changing(folder) as notes:
            notes["category"] = category
            write_text(folder / _SETTINGS, _settings(name, category))
        self._reordered({**self._order(), name: category})
        return self.get(name)

    def reorder(self, names: Sequence[str]) -> tuple[StoredSubject, ...]:
        """Bring the subjects into this order; those not named follow."""
        known = self._order()
        wanted = {name: known[name] for name in names if name in known}
        self._reordered({**wanted, **known})
        return self.list()

    def remove(self, name: str) -> Discarded:
        """Move a subject with its photos to the trash."""
        self._require(name)
        found = self._trash.discard("subject", name, [self._parts(name)])
        self._reordered({known: noun for known, noun in self._order().items() if known != name})
        return found

    def add_photos(
        self, name: str, uploads: Sequence[Upload], tell: Tell = lambda _done, _of: None
    ) -> Added:
        """Take in photos, (file name for messages, content) each, and find the subject in them.

        They are decoded in a process with limits and kept upright, without metadata. A photo in
        which the subject cannot be found has no mask, and a warning that says so.

        Raises:
            SubjectError: there are more than the limits allow.
        """
        folder = self._require(name)
        if len(list_pictures(folder)) + len(uploads) > MOST_PHOTOS:
            raise SubjectError(
                f"<{name}> would have over {MOST_PHOTOS} photos; three to six good ones are enough."
            )
        return self._take(name, decode_photos(uploads), tell)

    def add_clip(
        self, name: str, upload: Upload, count: int = 6, tell: Tell = lambda _done, _of: None
    ) -> Added:
        """Take in `count` frames of a video, well apart and sharp, as `add_photos`."""
        folder = self._require(name)
        if not 1 <= count <= MOST_PHOTOS - len(list_pictures(folder)):
            raise SubjectError(f"{count} frames cannot be added to <{name}>; choose fewer.")
        return self._take(name, decode_clip(upload, count), tell)

    def remove_photo(self, name: str, photo: str) -> Discarded:
        """Move a photo and its mask to the trash."""
        path, parts = self._picture(name, photo), self._parts(name)
        places = [
            (*parts, path.name),
            (*parts, _MASKS, f"{path.stem}.png"),
            (*parts, _OVERLAYS, f"{path.stem}.jpg"),
        ]
        return self._trash.discard("photo", f"{name} {path.name}", places)

    def replace_mask(self, name: str, photo: str, mask: bytes | NDArray[Any]) -> StoredSubject:
        """Put a mask that somebody painted in the photo's place: PNG bytes, or an array (height,
        width) in which all above zero is the subject.

        It is stretched to the photo's size.

        Raises:
            SubjectError: it is no picture, is empty, or covers everything.
        """
        folder, path = self._require(name), self._picture(name, photo)
        image = read_picture(path).image
        height, width = image.shape[:2]
        painted = mask if isinstance(mask, bytes) else _png((np.asarray(mask) > 0) * np.uint8(255))
        weights = check_mask(decode_mask(painted, (height, width)), image, "the painted mask")
        self._keep(folder, path, image, weights, edited=True)
        return self.get(name)

    def find_again(
        self, name: str, photo: str | None = None, segmenter: str = "grabcut"
    ) -> StoredSubject:
        """Make the masks anew, of one photo or of all that nobody edited.

        Raises:
            SubjectError: there is no such segmenter or photo.
        """
        folder, subject = self._require(name), self.get(name)
        segment = resolve_segmenter(segmenter)
        chosen = (
            [self._picture(name, photo)]
            if photo
            else [one.file for one in subject.photos if not one.edited]
        )
        for path in chosen:
            image = read_picture(path).image
            self._keep(folder, path, image, _found(segment, image, subject.category), edited=False)
        return self.get(name)

    def _take(self, name: str, decoded: Sequence[Decoded | Refused], tell: Tell) -> Added:
        folder, category = self._require(name), self.get(name).category
        segment = resolve_segmenter("grabcut")
        names, refused = [], []
        for done, one in enumerate(decoded):
            tell(done, len(decoded))
            try:
                names.append(self._place(folder, category, segment, one))
            except SubjectError as error:
                refused.append(str(error))
        tell(len(decoded), len(decoded))
        photos = {photo.name: photo for photo in self.get(name).photos}
        return Added(tuple(photos[one] for one in names if one in photos), tuple(refused))

    def _place(self, folder: Path, category: str, segment: Any, one: Decoded | Refused) -> str:
        """Write one photo, its mask and what is noted of it; returns its name."""
        if isinstance(one, Refused) or one.image is None:
            reason = one.reason if isinstance(one, Refused) else f"'{one.name}' is no picture."
            raise SubjectError(reason)
        digest = hashlib.sha256(one.image.tobytes()).hexdigest()
        with self._changing(folder) as notes:
            # What lies in the trash is still noted, for when it comes back.
            there = {path.stem for path in list_pictures(folder)}
            noted = [known for stem, known in notes["photos"].items() if stem in there]
            if any(known.get("digest") == digest for known in noted):
                raise SubjectError(f"'{one.name}' is among the photos already.")
            stem = f"{notes['next']:03d}"
            notes["next"] += 1
            notes["photos"][stem] = {"digest": digest, "source": one.name}
            path = folder / f"{stem}{'.jpg' if one.lossy else '.png'}"
            write_bytes(path, _jpeg(one.image) if one.lossy else _png(one.image))
        mask = None if one.alpha is None else _given(one.alpha, one.image)
        if mask is None:
            mask = _found(segment, one.image, category)
        self._keep(folder, path, one.image, mask, edited=False)
        return stem

    def _keep(
        self,
        folder: Path,
        path: Path,
        image: NDArray[np.uint8],
        mask: NDArray[np.float32] | None,
        *,
        edited: bool,
    ) -> None:
        """Write a photo's mask, or take away the one it had, and note what is doubtful."""
        mask_file = ensure_dir(folder / _MASKS) / f"{path.stem}.png"
        drawn = ensure_dir(folder / _OVERLAYS) / f"{path.stem}.jpg"
        with self._changing(folder) as notes:
            if mask is None:
                for file in (mask_file, drawn):
                    file.unlink(missing_ok=True)
            else:
                write_bytes(mask_file, _png((mask * 255).round().astype(np.uint8)))
                write_bytes(drawn, _jpeg(overlay(image, mask)))
            noted = notes["photos"].setdefault(path.stem, {})
            noted.update(
                edited=edited, size=list(image.shape[:2]), warnings=photo_doubts(image, mask)
            )

    def _photo(self, folder: Path, path: Path, notes: Mapping[str, Any]) -> Photo:
        noted = notes["photos"].get(path.stem) or {}
        mask, drawn = folder / _MASKS / f"{path.stem}.png", folder / _OVERLAYS / f"{path.stem}.jpg"
        if "size" not in noted:
            # Somebody put the file there by hand.
            noted = self._look(folder, path, mask)
        return Photo(
            path.stem,
            path,
            mask if mask.is_file() else None,
            drawn if drawn.is_file() and mask.is_file() else None,
            bool(noted.get("edited")),
            (int(noted["size"][0]), int(noted["size"][1])),
            tuple(map(str, noted.get("warnings", ()))),
        )

    def _look(self, folder: Path, path: Path, mask_file: Path) -> Mapping[str, Any]:
        picture = read_picture(path)
        mask = read_mask(mask_file, picture) if mask_file.is_file() else None
        self._keep(folder, path, picture.image, mask, edited=mask is not None)
        found: Mapping[str, Any] = self._notes(folder)["photos"][path.stem]
        return found

    def _order(self) -> dict[str, str]:
        """Name -> category, in order; what the project's file does not know comes last."""
        known = dict(self._projects.get(self._project).subjects)
        home = self._projects.folder(self._project) / SUBJECTS
        there = sorted(path.name for path in home.glob("[!.]*")) if home.is_dir() else []
        return {name: noun for name, noun in known.items() if name in there} | {
            name: "" for name in there if name not in known
        }

    def _reordered(self, subjects: Mapping[str, str]) -> None:
        self._projects.set_subjects(self._project, subjects)

    def _parts(self, name: str) -> tuple[str, ...]:
        folder = self._folder(name)
        return folder.relative_to(self._root).parts

    def _folder(self, name: str) -> Path:
        return inside(self._projects.folder(self._project), SUBJECTS, check_name(name))

    def _require(self, name: str) -> Path:
        folder = self._folder(name)
        if not folder.is_dir():
            raise StorageError(f"There is no <{name}> in this project; choose one from its list.")
        return folder

    def _picture(self, name: str, photo: str) -> Path:
        for path in list_pictures(self._require(name)):
            if path.stem == photo and not path.is_symlink():
                return path
        raise SubjectError(f"<{name}> has no photo {str(photo)[:40]!r}; choose one from its list.")

    def _notes(self, folder: Path) -> dict[str, Any]:
        file = folder / _NOTES
        if not file.exists():
            stems = [path.stem for path in list_pictures(folder)]
            highest = max((int(stem) for stem in stems if stem.isdecimal()), default=0)
            return {"next": highest + 1, "photos": {}}
        notes = read_json(file)
        if not isinstance(notes.get("photos"), dict) or not isinstance(notes.get("next"), int):
            raise StorageError(f"'{file}' is damaged; delete it: it is made anew.")
        return notes

    @contextmanager
    def _changing(self, folder: Path) -> Iterator[dict[str, Any]]:
        """The subject's notes, to be changed by one at a time."""
        with FileLock(folder / ".lock"):
            notes = self._notes(folder)
            yield notes
            write_json(folder / _NOTES, notes)


def _found(segment: Any, image: NDArray[np.uint8], category: str) -> NDArray[np.float32] | None:
    try:
        return check_mask(segment(image, category), image, "the mask", made=True)
    except SubjectError:
        return None


def _given(alpha: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """The mask that came as transparency, if it can be one."""
    if alpha.shape != image.shape[:2]:
        return None
    try:
        return check_mask(alpha.astype(np.float32) / np.float32(255), image, "the transparency")
    except SubjectError:
        return None


def _settings(name: str, category: str) -> str:
    return tomli_w.dumps({"word": name, "category": category})


def _png(pixels: NDArray[np.uint8]) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, format="PNG")
    return memory.getvalue()


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, format="JPEG", quality=_QUALITY, subsampling=0)
    return memory.getvalue()
