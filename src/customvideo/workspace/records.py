"""What a workspace's lists hold: plain frozen records, and settings as a page sends them.

Reading and writing them is done by their owners: `projects`, `shelf`, `jobs`, `library`, `trash`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, JsonValue

from customvideo.settings import FROM_LIST, LARGEST_SEED, Settings

__all__ = [
    "ENDED",
    "REQUESTS",
    "AdapterEntry",
    "Added",
    "Box",
    "Discarded",
    "EvaluateRequest",
    "ExportRequest",
    "GenerateRequest",
    "Job",
    "Kind",
    "Listing",
    "MergeRequest",
    "Photo",
    "Progress",
    "Project",
    "Request",
    "State",
    "StoredSubject",
    "TrainRequest",
    "VideoEntry",
]

Entry = TypeVar("Entry")
Kind = Literal["train", "generate", "export", "merge", "evaluate"]
State = Literal["queued", "running", "paused", "stopped", "failed", "done"]
ENDED: tuple[State, ...] = ("stopped", "failed", "done")
"""States that a job leaves only when somebody resumes it."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of the picture's width and height, 0 to 1."""


@dataclass(frozen=True)
class Listing(Generic[Entry]):
    """What a folder holds: the entries that can be read, and a sentence for each that cannot."""

    entries: tuple[Entry, ...]
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Photo:
    """A photo of a subject; `name` is its id within the subject.

    Attributes:
        file: the upright picture, JPEG or PNG.
        mask: its mask, white on black, of the picture's size; None where none could be made.
        overlay: the mask drawn over the photo; None without a mask.
        edited: somebody mended the mask by hand.
        size: height and width in pixels.
        warnings: what is doubtful about it, a sentence each.
    """

    name: str
    file: Path
    mask: Path | None
    overlay: Path | None
    edited: bool
    size: tuple[int, int]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredSubject:
    """A subject of a project: `tom`, a cat, and its photos. `folder` is what `load_subjects` takes.

    `warnings` are about the subject as a whole (too few photos, masks unlike each other)."""

    name: str
    category: str
    folder: Path
    photos: tuple[Photo, ...]
    warnings: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """As prompts write it: `<tom>`."""
        return f"<{self.name}>"


@dataclass(frozen=True)
class Added:
    """What came of an upload: the photos it gave, and a sentence for each file that was refused."""

    photos: tuple[Photo, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Project:
    """What a project's file says. `settings` are whatever the page wants to keep (JSON)."""

    id: str
    name: str
    subjects: tuple[tuple[str, str], ...]
    """Name and category of each, in order."""
    settings: Mapping[str, Any]
    created: str


@dataclass(frozen=True)
class Job:
    """Something to be done, and how it stands.

    Attributes:
        id: also the name of its folder.
        kind: what is done; `settings` are those of its request class (`REQUESTS`).
        project: id of the project it belongs to; empty where it belongs to none.
        title: one line for people.
        state: queued, running, paused (goes on when resumed), stopped (what was learned is kept),
            failed (`message` says why) or done.
        message: one sentence about the state; empty where there is nothing to say.
        adapter: id of the adapter it makes; empty for other kinds.
        videos: ids of the videos it makes, in order; those that exist can be shown.
        created, started, finished: times as text, empty where it has not happened.
        position: place in the queue, 1 is next; 0 unless queued.
        can_resume: resuming does something: paused, stopped or failed.
        warnings: what the run warned of, a sentence each.
    """

    id: str
    kind: Kind
    project: str
    title: str
    settings: Mapping[str, Any]
    state: State
    message: str = ""
    adapter: str = ""
    videos: tuple[str, ...] = ()
    created: str = ""
    started: str = ""
    finished: str = ""
    position: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def can_resume(self) -> bool:
        return self.state in ("paused", "stopped", "failed")

    @property
    def active(self) -> bool:
        """Whether it waits for its turn or is being done."""
        return self.state in ("queued", "running")


@dataclass(frozen=True)
class Progress:
    """How far a job is, from files that the run writes; valid for jobs in any state.

    Attributes:
        phase: what is being done, in words: "loading the model", "training", …; empty if unknown.
        step, of: finished and wanted steps, of training or of drawing all videos; 0 if unknown.
        seconds_left: an estimate; None until there is one.
        losses: part -> (step, value) pairs; "loss" is their sum. Training only.
        previews: videos drawn during training, oldest first, by step.
        attention: pictures of the words' attention in those previews, by step.
        note: what the run said last, one line.
    """

    phase: str = ""
    step: int = 0
    of: int = 0
    seconds_left: float | None = None
    losses: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    previews: Mapping[int, Path] = field(default_factory=dict)
    attention: Mapping[int, Path] = field(default_factory=dict)
    note: str = ""

    @property
    def preview(self) -> Path | None:
        """The newest preview."""
        return self.previews[max(self.previews)] if self.previews else None


@dataclass(frozen=True)
class VideoEntry:
    """A video of the library. `settings` redo it: `GenerateRequest(**settings)`.

    Attributes:
        mp4, gif: the files to show and to download.
        attention: learned word -> the video with that word's attention drawn over it.
        prompt, seed, adapter: what it was made of; no adapter is the base model.
        label: who made it, for comparisons: the adapter's name, or "base model".
        job: id of the job that made it: videos of one job belong together.
        seconds: how long drawing took.
        fps, frames: for players that show one frame at a time.
    """

    id: str
    mp4: Path
    gif: Path
    attention: Mapping[str, Path]
    prompt: str
    seed: int
    adapter: str
    label: str
    project: str
    job: str
    settings: Mapping[str, Any]
    created: str
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    fps: float = 8.0
    frames: int = 1


@dataclass(frozen=True)
class AdapterEntry:
    """An adapter of the library, read from its file's header: nothing is loaded.

    Attributes:
        words: name and category of each learned word, in order.
        method, backbone: as its header names them.
        steps: that it was trained for; 0 where nobody says.
        scores: name -> mean, from its newest evaluation; empty before.
        videos: ids of videos made with it, newest first.
        file: `adapter.safetensors`; folder: the whole run. report: the run's page, if any.
        bytes: of its folder on the disk.
        origin: "trained", "stopped" (of a training that did not end), "merged" or "imported".
    """

    id: str
    name: str
    words: tuple[tuple[str, str], ...]
    method: str
    backbone: str
    created: str
    bytes: int
    file: Path
    folder: Path
    steps: int = 0
    project: str = ""
    origin: str = "trained"
    scores: Mapping[str, float | None] = field(default_factory=dict)
    videos: tuple[str, ...] = ()
    report: Path | None = None


@dataclass(frozen=True)
class Discarded:
    """Something in the trash; `Trash.restore(id)` brings it back."""

    id: str
    kind: Literal["project", "subject", "photo", "adapter", "video", "job"]
    name: str
    deleted: str
    bytes: int = 0


Name = Annotated[str, Field(max_length=80)]
Prompt = Annotated[str, Field(min_length=1, max_length=2000)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Device = Annotated[str, Field(pattern=r"auto|cpu|cuda(:\d+)?")]
Share = Annotated[float, Field(ge=0, le=1)]


class TrainRequest(Settings):
    """Learn a project's subjects."""

    name: Name = ""
    """Of the adapter; empty for one made of the subjects."""
    subjects: Annotated[tuple[str, ...], FROM_LIST] = ()
    """Which of the project's, in order; empty for all."""
    backbone: str = "toybox"
    method: str = "customvideo"
    recipe: str = ""
    """A packaged recipe's name (`customvideo-paper`); empty for the method's usual one."""
    steps: int | None = Field(default=None, ge=1)
    """None for the recipe's."""
    seed: Seed = 0
    preview_every: int | None = Field(default=None, ge=0)
    """Steps between previews; None for five in the run, 0 for none."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Further keys of the recipe."""
    device: Device = "auto"


class GenerateRequest(Settings):
    """Draw videos: every prompt with every adapter and every seed."""

    prompts: Annotated[tuple[Prompt, ...], FROM_LIST] = Field(min_length=1, max_length=32)
    adapters: Annotated[tuple[str, ...], FROM_LIST] = Field(default=("",), min_length=1)
    """Ids; the empty one is the base model."""
    backbone: str = ""
    """For the base model where no adapter says which; empty for toybox."""
    seeds: Annotated[tuple[Seed, ...], FROM_LIST] = Field(default=(0,), min_length=1, max_length=64)
    negative: str = ""
    steps: int | None = Field(default=None, ge=1, le=1000)
    """This and the following: None for how the adapter's run sampled."""
    guidance: float | None = Field(default=None, ge=0)
    strength: float | None = Field(default=None, ge=0)
    solver: str | None = None
    regions: Literal["off", "alike", "all"] | None = None
    frames: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    layout: dict[str, Annotated[tuple[Share, Share, Share, Share], FROM_LIST]] = Field(
        default_factory=dict
    )
    """Subject's name -> the box it shall stay in (`Box`)."""
    attention: bool = False
    """Also draw where each learned word looks."""
    device: Device = "auto"


class ExportRequest(Settings):
    """Write an adapter for another program, as one zip file."""

    adapter: str
    target: str
    """A row of `customvideo.exports.targets.TARGETS`."""
    rank: int | None = Field(default=None, ge=1)
    dtype: str = "fp32"
    words_only: bool = False
    device: Device = "auto"


class MergeRequest(Settings):
    """Make one adapter of several."""

    adapters: Annotated[tuple[str, ...], FROM_LIST] = Field(min_length=2)
    name: Name = ""
    how: str | None = None
    """`sum`, `closed-form`, `gradient`; None for the one that loses least."""
    rename: Annotated[tuple[str, ...], FROM_LIST] = ()
    """`old=new` for words of later adapters."""
    device: Device = "auto"


class EvaluateRequest(Settings):
    """Score an adapter's videos against its project's photos."""

    adapter: str
    prompts: Annotated[tuple[Prompt, ...], FROM_LIST] = ()
    seeds: Annotated[tuple[Seed, ...], FROM_LIST] = (0,)
    device: Device = "auto"


Request = TrainRequest | GenerateRequest | ExportRequest | MergeRequest | EvaluateRequest

REQUESTS: dict[Kind, type[Request]] = {
    "train": TrainRequest,
    "generate": GenerateRequest,
    "export": ExportRequest,
    "merge": MergeRequest,
    "evaluate": EvaluateRequest,
}
"""Which settings a job of each kind has."""
