"""The shelf: a project's subjects and their photos, in the very folders that training reads.

Photos from strangers are decoded elsewhere (`uploads`); masks are made by the package's segmenters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from customvideo.workspace.projects import Projects
from customvideo.workspace.records import Added, Discarded, StoredSubject
from customvideo.workspace.trash import Trash

__all__ = ["Shelf"]


class Shelf:
    """The subjects of one project."""

    def __init__(self, root: Path, project: str, projects: Projects, trash: Trash) -> None:
        self._root, self._project = root, project
        self._projects, self._trash = projects, trash

    def list(self) -> tuple[StoredSubject, ...]:
        """The subjects, in the project's order."""
        raise NotImplementedError

    def get(self, name: str) -> StoredSubject:
        """The subject called `name`. Raises StorageError if there is none."""
        raise NotImplementedError

    def add(self, name: str, category: str) -> StoredSubject:
        """Begin a subject without photos.

        Raises:
            PromptError: the name or category is unusable.
            StorageError: there is one already.
        """
        raise NotImplementedError

    def set_category(self, name: str, category: str) -> StoredSubject:
        """Say that a subject is something else."""
        raise NotImplementedError

    def reorder(self, names: Sequence[str]) -> tuple[StoredSubject, ...]:
        """Bring the subjects into this order."""
        raise NotImplementedError

    def remove(self, name: str) -> Discarded:
        """Move a subject with its photos to the trash."""
        raise NotImplementedError

    def add_photos(self, name: str, uploads: Sequence[tuple[str, bytes]]) -> Added:
        """Take in photos, (file name for messages, content) each, and find the subject in them.

        They are decoded in a process with limits and kept upright, without metadata. A photo in
        which the subject cannot be found has no mask, and a warning that says so.

        Raises:
            SubjectError: there are more than the limits allow.
        """
        raise NotImplementedError

    def add_clip(self, name: str, upload: tuple[str, bytes], count: int = 6) -> Added:
        """Take in some frames of a video, well apart and sharp, as `add_photos`."""
        raise NotImplementedError

    def remove_photo(self, name: str, photo: str) -> Discarded:
        """Move a photo and its mask to the trash."""
        raise NotImplementedError

    def replace_mask(self, name: str, photo: str, mask: bytes) -> StoredSubject:
        """Put a mask that somebody painted (PNG, white is the subject) in the photo's place.

        It is stretched to the photo's size.

        Raises:
            SubjectError: it is no picture, is empty, or covers everything.
        """
        raise NotImplementedError

    def find_again(
        self, name: str, photo: str | None = None, segmenter: str = "grabcut"
    ) -> StoredSubject:
        """Make the masks anew, of one photo or of all that nobody edited."""
        raise NotImplementedError
