"""The library: adapters and videos, what is known of them, and what can be done with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from customvideo.workspace.records import AdapterEntry, Discarded, Listing, VideoEntry
from customvideo.workspace.trash import Trash

__all__ = ["Library"]


class Library:
    """The adapters and videos of the workspace `root`. Merging and exporting are jobs."""

    def __init__(self, root: Path, trash: Trash) -> None:
        self._root, self._trash = root, trash

    def adapters(self, project: str | None = None) -> Listing[AdapterEntry]:
        """All adapters, of one project if given, newest first."""
        raise NotImplementedError

    def adapter(self, id: str) -> AdapterEntry:
        """The adapter called `id`. Raises StorageError if there is none."""
        raise NotImplementedError

    def rename_adapter(self, id: str, name: str) -> AdapterEntry:
        """Give an adapter another name; its id and its words stay."""
        raise NotImplementedError

    def delete_adapter(self, id: str) -> Discarded:
        """Move an adapter with its run to the trash; its videos stay.

        Raises:
            StorageError: there is none, or a job is working on it.
        """
        raise NotImplementedError

    def import_adapter(self, data: bytes, name: str, project: str = "") -> AdapterEntry:
        """Take in an `adapter.safetensors` from elsewhere.

        Raises:
            UserError: it is none, or is damaged or too large.
        """
        raise NotImplementedError

    def archive(self, id: str) -> Path:
        """The adapter, its recipe and its report as one zip file to download."""
        raise NotImplementedError

    def videos(self, project: str | None = None, adapter: str | None = None) -> Listing[VideoEntry]:
        """All videos, of one project or adapter if given ("" is the base model), newest first."""
        raise NotImplementedError

    def video(self, id: str) -> VideoEntry:
        """The video called `id`. Raises StorageError if there is none."""
        raise NotImplementedError

    def delete_video(self, id: str) -> Discarded:
        """Move a video to the trash."""
        raise NotImplementedError

    def disk_use(self) -> Mapping[str, int]:
        """Bytes by kind: projects, adapters, videos, jobs, trash; and what the disk has `free`."""
        raise NotImplementedError
