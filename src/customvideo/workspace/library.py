"""The library: adapters and videos, what is known of them, and what can be done with them.

    adapters/<id>/    the folder of a run, with library.json: name, project, origin, scores
    videos/<id>/      video.mp4, video.gif, attention-<name>.mp4, settings.json

An adapter counts once its file is there, a video once its settings are, which are written last.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from customvideo.errors import AdapterError, CustomVideoError, StorageError
from customvideo.files import atomic_folder, atomic_path, write_bytes
from customvideo.workspace.jobs import job_folders
from customvideo.workspace.places import (
    ADAPTERS,
    JOBS,
    PROJECTS,
    TRASH,
    VIDEOS,
    check_id,
    clean_name,
    inside,
    new_id,
    now,
    read_json,
    write_json,
)
from customvideo.workspace.records import AdapterEntry, Discarded, Listing, VideoEntry
from customvideo.workspace.seen import Seen, stamp
from customvideo.workspace.trash import Trash, folder_bytes

__all__ = ["ADAPTER", "Library"]

Entry = TypeVar("Entry")

ADAPTER = "adapter.safetensors"
_FILE, _SETTINGS = "library.json", "settings.json"
_LARGEST = 8 * 2**30
_ARCHIVED = (ADAPTER, "recipe.toml", "report.html", "scores.json")


class Library:
    """The adapters and videos of the workspace `root`. Merging and exporting are jobs."""

    def __init__(self, root: Path, trash: Trash) -> None:
        self._root, self._trash = root, trash
        self._adapters: Seen[AdapterEntry] = Seen(ADAPTER, _FILE)
        self._videos: Seen[VideoEntry] = Seen(_SETTINGS)

    def adapters(self, project: str | None = None) -> Listing[AdapterEntry]:
        """All adapters, of one project if given, newest first."""
        # A training that has not ended has no adapter yet, and is no broken one.
        found, broken = self._read(ADAPTERS, ADAPTER, self._adapters, self._adapter)
        made = self._videos_by_adapter()
        found = [replace(entry, videos=tuple(made.get(entry.id, ()))) for entry in found]
        found = [entry for entry in found if project is None or entry.project == project]
        found.sort(key=lambda entry: entry.created, reverse=True)
        return Listing(tuple(found), tuple(broken))

    def adapter(self, id: str) -> AdapterEntry:
        """The adapter called `id`. Raises StorageError if there is none."""
        folder = inside(self._root, ADAPTERS, check_id(id))
        entry = self._adapters.get(folder, partial(self._adapter, id))
        return replace(entry, videos=tuple(self._videos_by_adapter().get(id, ())))

    def rename_adapter(self, id: str, name: str) -> AdapterEntry:
        """Give an adapter another name; its id and its words stay."""
        name = clean_name(name, "adapter")
        self.adapter(id)
        self.note(id, name=name)
        return self.adapter(id)

    def note(self, id: str, **facts: Any) -> None:
        """Write facts about an adapter beside it, over those that are there."""
        file = inside(self._root, ADAPTERS, check_id(id)) / _FILE
        known = read_json(file) if file.exists() else {"created": now()}
        write_json(file, {**known, **facts})

    def source(self, id: str) -> str | None:
        """What `load_backbone` takes for the adapter's backbone, if it was noted."""
        folder = inside(self._root, ADAPTERS, check_id(id))
        noted = read_json(folder / _FILE) if (folder / _FILE).exists() else {}
        return str(noted["backbone"]) if noted.get("backbone") else None

    def delete_adapter(self, id: str) -> Discarded:
        """Move an adapter with its run to the trash; its videos stay.

        Raises:
            StorageError: there is none, or a job is working on it.
        """
        entry = self.adapter(id)
        for folder in job_folders(self._root):
            with suppress(StorageError):
                job = folder.job()
                needs = {job.adapter, str(job.settings.get("adapter"))}
                needs |= set(map(str, job.settings.get("adapters") or ()))
                if job.active and id in needs:
                    break
        else:
            return self._trash.discard("adapter", entry.name, [(ADAPTERS, id)])
        raise StorageError(f"'{entry.name}' is needed by the job '{job.title}'; stop that first.")

    def import_adapter(self, data: bytes | Path, name: str, project: str = "") -> AdapterEntry:
        """Take in an `adapter.safetensors` from elsewhere: its content, or a file of this machine.

        Raises:
            UserError: it is none, or is damaged or too large.
        """
        from customvideo.adapters.header import read_file

        name = clean_name(name, "adapter")
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if size > _LARGEST:
            raise AdapterError(f"'{name}' is over {_LARGEST >> 30} GB, too large for an adapter.")
        id = new_id(name)
        with atomic_folder(inside(self._root, ADAPTERS, id)) as folder:
            if isinstance(data, Path):
                shutil.copyfile(data, folder / ADAPTER)
            else:
                write_bytes(folder / ADAPTER, data)
            try:
                read_file(folder / ADAPTER)
            except AdapterError as error:
                raise AdapterError(str(error).replace(str(folder / ADAPTER), name)) from error
            facts = {"name": name, "project": project, "origin": "imported", "created": now()}
            write_json(folder / _FILE, facts)
        return self.adapter(id)

    def archive(self, id: str) -> Path:
        """The adapter, its recipe and its report as one zip file to download.

        It is written anew only if one of them has changed.
        """
        folder = self.adapter(id).folder
        files = [folder / name for name in _ARCHIVED if (folder / name).is_file()]
        target = folder / f"{id}.zip"
        # The archive's own comment says of what it is.
        made_of = repr([(file.name, *stamp([file])) for file in files]).encode()
        if _comment(target) != made_of:
            with atomic_path(target) as path, zipfile.ZipFile(path, "w") as archive:
                archive.comment = made_of
                for file in files:
                    archive.write(file, file.name)
        return target

    def videos(self, project: str | None = None, adapter: str | None = None) -> Listing[VideoEntry]:
        """All videos, of one project or adapter if given ("" is the base model), newest first."""
        # One that is being drawn has no settings yet.
        found, broken = self._read(VIDEOS, _SETTINGS, self._videos, self._video)
        found = [
            entry
            for entry in found
            if project in (None, entry.project) and adapter in (None, entry.adapter)
        ]
        found.sort(key=lambda entry: entry.created, reverse=True)
        return Listing(tuple(found), tuple(broken))

    def video(self, id: str) -> VideoEntry:
        """The video called `id`. Raises StorageError if there is none."""
        folder = inside(self._root, VIDEOS, check_id(id))
        return self._videos.get(folder, partial(self._video, id))

    def _video(self, id: str) -> VideoEntry:
        folder = inside(self._root, VIDEOS, check_id(id))
        values = read_json(folder / _SETTINGS)
        try:
            return VideoEntry(
                id=id,
                mp4=folder / "video.mp4",
                gif=folder / "video.gif",
                attention={
                    f"<{name}>": folder / f"attention-{name}.mp4" for name in values["words"]
                },
                prompt=str(values["prompt"]),
                seed=int(values["seed"]),
                adapter=str(values["adapter"]),
                label=str(values["label"]),
                project=str(values["project"]),
                job=str(values["job"]),
                settings=dict(values["settings"]),
                created=str(values["created"]),
                seconds=float(values["seconds"]),
                warnings=tuple(map(str, values["warnings"])),
                fps=float(values["fps"]),
                frames=int(values["frames"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StorageError(f"'{folder / _SETTINGS}' is damaged; delete the video.") from error

    def keep_video(self, id: str, **facts: Any) -> None:
        """Write what is known of a video whose files are there."""
        write_json(
            inside(self._root, VIDEOS, check_id(id)) / _SETTINGS, {**facts, "created": now()}
        )

    def delete_video(self, id: str) -> Discarded:
        """Move a video to the trash."""
        return self._trash.discard("video", self.video(id).prompt, [(VIDEOS, id)])

    def disk_use(self) -> Mapping[str, int]:
        """Bytes by kind: projects, adapters, videos, jobs, trash; and what the disk has `free`."""
        kinds = (PROJECTS, ADAPTERS, VIDEOS, JOBS, TRASH)
        found = {kind: folder_bytes(self._root / kind) for kind in kinds}
        return {**found, "free": shutil.disk_usage(self._root).free}

    def _read(
        self, kind: str, needed: str, seen: Seen[Entry], read: Callable[[str], Entry]
    ) -> tuple[list[Entry], list[str]]:
        """The records of a kind's folders that hold the file `needed`, and what is wrong."""
        found, broken = [], []
        home = self._root / kind
        folders = sorted(path for path in home.glob("[!.]*") if path.is_dir())
        for folder in folders:
            if not (folder / needed).exists():
                continue
            try:
                found.append(seen.get(folder, partial(read, folder.name)))
            except CustomVideoError as error:
                broken.append(str(error))
        seen.keep([folder.name for folder in folders])
        return found, broken

    def _videos_by_adapter(self) -> dict[str, list[str]]:
        made: dict[str, list[str]] = {}
        for entry in self.videos().entries:
            made.setdefault(entry.adapter, []).append(entry.id)
        return made

    def _adapter(self, id: str) -> AdapterEntry:
        """What is known of an adapter but for its videos."""
        folder = inside(self._root, ADAPTERS, check_id(id))
        file = inside(folder, ADAPTER)
        if not file.is_file():
            raise StorageError(
                f"There is no adapter '{id}' in the library; choose one of its list."
            )
        noted = read_json(folder / _FILE) if (folder / _FILE).exists() else {}
        header = _header(file)
        report = folder / "report.html"
        words = tuple((word["name"], word["category"]) for word in header["words"])
        return AdapterEntry(
            id=id,
            name=str(noted.get("name") or " and ".join(name for name, _ in words) or id),
            words=words,
            method=str(header["method"]),
            backbone=str(header["backbone"]),
            created=str(noted.get("created", "")),
            bytes=folder_bytes(folder),
            file=file,
            folder=folder,
            steps=int(noted.get("steps", 0)),
            project=str(noted.get("project", "")),
            origin=str(noted.get("origin", "trained")),
            scores=dict(noted.get("scores", {})),
            report=report if report.is_file() else None,
        )


def _header(file: Path) -> dict[str, Any]:
    from customvideo.adapters.header import read_header

    return read_header(file).model_dump(mode="json")


def _comment(archive: Path) -> bytes:
    """The comment of a zip file; empty if it is missing or none."""
    try:
        with zipfile.ZipFile(archive) as found:
            return found.comment
    except (OSError, zipfile.BadZipFile):
        return b""
