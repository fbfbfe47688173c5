"""Drawing the videos of a job: which model, which settings, which files.

How a video is drawn is `customvideo.generation`. The package's own verb numbers files; here every
video has a folder of its own, can be left out when it is there, and counts its steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from customvideo.files import ensure_dir
from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.workspace.library import ADAPTER
from customvideo.workspace.places import ADAPTERS, VIDEOS, inside
from customvideo.workspace.records import GenerateRequest
from customvideo.workspace.requests import require_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from customvideo.adapters.adapter import Adapter
    from customvideo.backbones.base import Backbone
    from customvideo.generation import SamplingConfig
    from customvideo.video import Video
    from customvideo.workspace.work import Work

__all__ = ["draw"]

_BASE = "base model"


@dataclass(frozen=True)
class _Shot:
    """One video to draw."""

    id: str
    prompt: str
    adapter: str
    seed: int


@dataclass(frozen=True, eq=False)
class _Model:
    """What draws it: a backbone with an adapter or none, and how it samples."""

    label: str
    backbone: Backbone
    adapter: Adapter | None
    options: SamplingConfig


class _Steps:
    """Counts the denoiser's calls of all videos of a job."""

    def __init__(self, work: Work, done: int, of: int) -> None:
        self._work, self.done, self._of = work, done, of

    def __call__(self) -> None:
        self._work.heed()
        self.done = min(self.done + 1, self._of)
        self._work.step(self.done, self._of)


def draw(work: Work, request: GenerateRequest) -> str:
    """Draw what the job lacks of its videos.

    Raises:
        UserError: a prompt, setting or adapter cannot be used.
        KeyboardInterrupt: somebody wanted the job to end.
    """
    asked = product(request.prompts, request.adapters, request.seeds)
    shots = [_Shot(id, *one) for id, one in zip(work.spec["videos"], asked, strict=True)]
    missing = [shot for shot in shots if not _settings(work, shot).is_file()]
    # One model after the other: each is loaded once.
    missing.sort(key=lambda shot: request.adapters.index(shot.adapter))
    models = _Models(work, request)
    steps: _Steps | None = None
    for shot in missing:
        model = models.get(shot.adapter)
        if steps is None:
            each = model.options.num_steps
            steps = _Steps(work, (len(shots) - len(missing)) * each, len(shots) * each)
            work.phase("drawing", listens=True)
        work.heed()
        with _counting(model.backbone, steps):
            _draw_one(work, request, shot, model)
    return ""


class _Models:
    """The models of a job; no two backbones are in memory at a time."""

    def __init__(self, work: Work, request: GenerateRequest) -> None:
        self._work, self._request = work, request
        self._backbone: tuple[str, Backbone] | None = None
        self._names = [self._source(id) for id in request.adapters]

    def get(self, id: str) -> _Model:
        from customvideo.adapters.adapter import Adapter
        from customvideo.runs.making import sampling_for

        path = self._file(id) if id else None
        adapter = None if path is None else Adapter.load(path)
        backbone = self._loaded(self._source(id) if id else self._base())
        if adapter is not None:
            adapter.check_fits(backbone)
        others = [self._file(one) for one in self._request.adapters if one]
        like = path or (others[0] if others else None)
        options = sampling_for(like, backbone, _sampling(self._request))
        label = self._work.workspace.library.adapter(id).name if id else _BASE
        return _Model(label, backbone, adapter, options)

    def words(self) -> tuple[LearnedWord, ...]:
        """Every word that an adapter of the job knows, for asking the base model plainly."""
        library = self._work.workspace.library
        known = {
            name: LearnedWord(name, noun)
            for id in self._request.adapters
            if id
            for name, noun in library.adapter(id).words
        }
        return tuple(known.values())

    def _loaded(self, name: str) -> Backbone:
        from customvideo.backbones.base import load_backbone

        if self._backbone is None or self._backbone[0] != name:
            self._backbone = None
            self._work.phase("loading the model")
            self._backbone = (name, load_backbone(name, self._request.device))
            self._work.phase("drawing", listens=True)
        return self._backbone[1]

    def _base(self) -> str:
        chosen = [name for name in self._names if name]
        return self._request.backbone or (chosen[0] if chosen else "toybox")

    def _source(self, id: str) -> str:
        from customvideo.adapters.adapter import Adapter
        from customvideo.runs.making import backbone_name

        if not id:
            return ""
        if noted := self._work.workspace.library.source(id):
            return noted
        # An adapter from elsewhere says in its header what it is for: whatever its maker wrote.
        named = backbone_name(self._file(id), Adapter.load(self._file(id)))
        require_model(self._work.workspace, named)
        return named

    def _file(self, id: str) -> Path:
        return inside(self._work.workspace.root, ADAPTERS, id, ADAPTER)


def _sampling(request: GenerateRequest) -> dict[str, Any]:
    """The request's settings as keys of `SamplingConfig`; what it leaves open is left out."""
    given: dict[str, Any] = {
        "num_steps": request.steps,
        "guidance": request.guidance,
        "strength": request.strength,
        "solver": request.solver,
        "regions": request.regions,
        "frames": request.frames,
        "height": request.height,
        "width": request.width,
        "negative": request.negative or None,
    }
    return {key: value for key, value in given.items() if value is not None}


def _draw_one(work: Work, request: GenerateRequest, shot: _Shot, model: _Model) -> None:
    """Draw a video and write its files, the settings last."""
    began, warned = time.monotonic(), len(work.warnings)
    text = shot.prompt
    if model.adapter is None:
        text = Prompt(text, _Models(work, request).words()).plain
    video, maps = _drawn(model, text, shot.seed, request)
    from customvideo.attention.draw import draw_words
    from customvideo.runs.making import watchable_scale

    folder = ensure_dir(inside(work.workspace.root, VIDEOS, shot.id))
    scale = watchable_scale(video)
    for suffix in (".mp4", ".gif"):
        video.save(folder / f"video{suffix}", scale=scale)
    for word, seen in maps.items():
        drawn = draw_words(video, {word: seen}, legend=False, scale=scale)
        drawn.save(folder / f"attention-{word.strip('<>')}.mp4")
    own = {"prompts": [shot.prompt], "adapters": [shot.adapter], "seeds": [shot.seed]}
    work.workspace.library.keep_video(
        shot.id,
        prompt=shot.prompt,
        seed=shot.seed,
        adapter=shot.adapter,
        label=model.label,
        project=work.spec["project"],
        job=work.folder.id,
        settings={**work.spec["settings"], **own},
        words=[word.strip("<>") for word in maps],
        seconds=round(time.monotonic() - began, 2),
        warnings=work.warnings[warned:],
        fps=video.fps,
        frames=len(video),
    )
    work.say(f"Drew: {shot.prompt}, seed {shot.seed}, {model.label}")


def _drawn(
    model: _Model, text: str, seed: int, request: GenerateRequest
) -> tuple[Video, dict[str, NDArray[Any]]]:
    from customvideo.generation import generate, generate_with_attention

    known = () if model.adapter is None else [word.name for word in model.adapter.words]
    layout = {name: box for name, box in request.layout.items() if name in known}
    how: dict[str, Any] = {"seed": seed, "options": model.options, "layout": layout}
    if request.attention and model.adapter is not None:
        return generate_with_attention(model.backbone, model.adapter, text, **how)
    return generate(model.backbone, model.adapter, text, **how), {}


def _settings(work: Work, shot: _Shot) -> Path:
    return inside(work.workspace.root, VIDEOS, shot.id) / "settings.json"


@contextmanager
def _counting(backbone: Any, steps: _Steps) -> Iterator[None]:
    """Tell `steps` of every prediction inside: a video's progress, and where it can be ended."""
    names: Sequence[str] = ("predict", "predict_guided")

    def counted(predict: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            steps()
            return predict(*given, **named)

        return call

    for name in names:
        setattr(backbone, name, counted(getattr(backbone, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(backbone, name)
