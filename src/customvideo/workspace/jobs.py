"""The folder of one job, and who may write which of its files.

job.json        what is to be done; written once, by the queue
state.json      how it stands; written by the queue and the runner, under the queue's lock
wish.json       that it shall pause or stop; written by the queue, read by the runner and work
work.lock       held by the process that does it, as long as that lives
process.json    which process that is
progress.json   how far it is; steps.jsonl: every step's losses; written by the work
result.json     how it ended; written by the work, last
log.txt         all that was said
out/            files to download
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from customvideo.errors import StorageError
from customvideo.records import parse_json
from customvideo.workspace.places import JOBS, check_id, inside, read_json, write_json
from customvideo.workspace.records import ENDED, REQUESTS, Job, Progress, State

__all__ = ["JobFolder", "Wish", "job_folders"]

Wish = Literal["pause", "stop"]
_STATES: tuple[State, ...] = ("queued", "running", "paused", *ENDED)
_LOG_TAIL = 200_000


@dataclass(frozen=True)
class JobFolder:
    """The files of a job."""

    root: Path
    """The workspace's."""
    id: str

    @property
    def path(self) -> Path:
        return inside(self.root, JOBS, check_id(self.id))

    @property
    def lock(self) -> Path:
        return self.path / "work.lock"

    @property
    def process(self) -> Path:
        return self.path / "process.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def steps(self) -> Path:
        return self.path / "steps.jsonl"

    @property
    def out(self) -> Path:
        return self.path / "out"

    def spec(self) -> dict[str, Any]:
        """What is to be done. Raises StorageError if that is damaged."""
        spec = read_json(self.path / "job.json")
        known = isinstance(spec.get("kind"), str) and spec["kind"] in REQUESTS
        videos, settings = spec.get("videos", []), spec.get("settings")
        if not (known and isinstance(settings, dict) and isinstance(videos, list)):
            raise StorageError(f"'{self.path / 'job.json'}' is damaged; delete the job.")
        return spec

    def create(self, spec: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write a new job's files."""
        write_json(self.path / "job.json", spec)
        write_json(self.path / "state.json", state)

    def state(self) -> dict[str, Any]:
        """How it stands. Raises StorageError if that is damaged."""
        state = read_json(self.path / "state.json")
        place, warnings = state.get("place", 0), state.get("warnings", [])
        known = state.get("state") in _STATES and isinstance(place, int)
        if not (known and isinstance(warnings, list)):
            raise StorageError(f"'{self.path / 'state.json'}' is damaged; delete the job.")
        return state

    def change(self, **changes: Any) -> None:
        """Change some of the state, under the queue's lock."""
        write_json(self.path / "state.json", {**self.state(), **changes})

    def wish(self) -> Wish | None:
        """What somebody wants of the job while it waits or runs."""
        try:
            found = read_json(self.path / "wish.json").get("wish")
        except StorageError:
            return None
        return cast("Wish", found) if found in ("pause", "stop") else None

    def want(self, wish: Wish | None) -> None:
        """Leave a wish, or take it back."""
        file = self.path / "wish.json"
        if wish is None:
            file.unlink(missing_ok=True)
        else:
            write_json(file, {"wish": wish})

    def tell(self, **progress: Any) -> None:
        """Say how far the work is."""
        write_json(self.path / "progress.json", progress)

    def told(self) -> dict[str, Any]:
        """How far the work was when it last said so; empty before."""
        try:
            return read_json(self.path / "progress.json")
        except StorageError:
            return {}

    def finish(self, outcome: str, message: str = "", warnings: tuple[str, ...] = ()) -> None:
        """Say how the work ended."""
        values = {"outcome": outcome, "message": message, "warnings": list(warnings)}
        write_json(self.path / "result.json", values)

    def result(self) -> dict[str, Any] | None:
        """How the work ended, None if it did not say."""
        try:
            return read_json(self.path / "result.json")
        except StorageError:
            return None

    def forget_result(self) -> None:
        """Before the work is begun again."""
        (self.path / "result.json").unlink(missing_ok=True)

    def job(self) -> Job:
        """All of it as a record but for its place. Raises StorageError if a file is damaged."""
        spec, state = self.spec(), self.state()
        wish = self.wish() if state["state"] in ("queued", "running") else None
        message = str(state.get("message", ""))
        if wish == "pause":
            message = "It pauses as soon as what was learned is saved."
        elif wish == "stop":
            message = "It stops as soon as what was learned is saved."
        return Job(
            id=self.id,
            kind=spec["kind"],
            project=str(spec.get("project", "")),
            title=str(spec.get("title", "")),
            settings=spec["settings"],
            state=state["state"],
            message=message,
            adapter=str(spec.get("adapter", "")),
            videos=tuple(map(str, spec.get("videos", ()))),
            created=str(spec.get("created", "")),
            started=str(state.get("started", "")),
            finished=str(state.get("finished", "")),
            warnings=tuple(map(str, state.get("warnings", ()))),
        )

    def progress(self, run: Path | None) -> Progress:
        """How far it is; `run` is the folder of the training run it fills, if it does."""
        told = self.told()
        seconds = told.get("seconds_left")
        previews = run / "previews" if run is not None else self.path / "previews"
        return Progress(
            phase=str(told.get("phase", "")),
            step=int(told.get("step", 0)),
            of=int(told.get("of", 0)),
            seconds_left=None if seconds is None else float(seconds),
            losses=self._losses(),
            previews=_by_step(previews, "{}.mp4"),
            attention=_by_step(previews, "{}-attention.png"),
            note=str(told.get("note", "")),
        )

    def tail(self, lines: int) -> str:
        """The last lines of the log."""
        if not self.log.is_file():
            return ""
        with self.log.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _LOG_TAIL))
            text = stream.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def _losses(self) -> dict[str, tuple[tuple[int, float], ...]]:
        """The losses by part; of a step that was done twice, the last."""
        curves: dict[str, dict[int, float]] = {}
        if not self.steps.is_file():
            return {}
        for text in self.steps.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = parse_json(text)
                for part, value in {"loss": line["loss"], **line["parts"]}.items():
                    curve = curves.setdefault(str(part), {})
                    curve[int(line["step"])] = float(value)
            except (ValueError, KeyError, TypeError, OverflowError):
                continue  # the line that was being written when the process ended
        return {part: tuple(sorted(curve.items())) for part, curve in curves.items()}


def job_folders(root: Path) -> list[JobFolder]:
    """All jobs' folders, whatever is in them."""
    home = root / JOBS
    names = sorted(path.name for path in home.glob("[!.]*") if path.is_dir())
    return [JobFolder(root, name) for name in names]


def _by_step(folder: Path, pattern: str) -> dict[int, Path]:
    before, after = pattern.split("{}")
    found: dict[int, Path] = {}
    for path in sorted(folder.glob(pattern.replace("{}", "*"))) if folder.is_dir() else ():
        step = path.name[len(before) : len(path.name) - len(after)]
        if step.isdecimal():
            found[int(step)] = path
    return found
