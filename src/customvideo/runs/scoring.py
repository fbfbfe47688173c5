"""Scores of an adapter, into a file: what `customvideo evaluate` does.

What a score is, is decided in `customvideo.evaluation`; here videos are made, judged and the
numbers written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from customvideo import generation
from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone, draws_toys
from customvideo.errors import ConfigError, SubjectError
from customvideo.evaluation import evaluate as judging
from customvideo.evaluation.evaluate import Encoders
from customvideo.evaluation.instances import InstanceSegmenter, resolve_segmenter
from customvideo.files import ensure_dir
from customvideo.records import write_record
from customvideo.runs.folder import ADAPTER, Say
from customvideo.runs.making import backbone_for, sampling_for
from customvideo.runs.recommending import STRENGTHS, Trial, candidates, recommend, report
from customvideo.subjects.folders import SubjectSpec, load_subjects
from customvideo.subjects.prompt import LearnedWord, Prompt, list_subjects
from customvideo.video import Video

__all__ = ["EvaluatePlan", "encoders_for", "evaluate", "finder_for", "standard_prompts"]


@dataclass(frozen=True)
class EvaluatePlan:
    """An adapter to score. Empty `prompts` means a few about all subjects; `encoders` play CLIP's
    and DINO's parts: `NAME` or `NAME=MODEL`, None for those that suit the backbone. `segmenter`
    makes masks of photos; `finder`, written like an encoder, looks for the subjects in the videos.
    """

    adapter: Path
    out: Path
    subjects: Sequence[str]
    prompts: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    backbone: str | None = None
    encoders: tuple[str | None, str | None] = (None, None)
    segmenter: str = "grabcut"
    device: str = "auto"
    finder: str | None = None
    strengths: Sequence[float] = ()
    """With `recommend`, what is tried of every adapter; empty for the usual."""
    recommend: bool = False
    """Whether `adapter` is the folder of a run, whose checkpoints are compared."""


def evaluate(plan: EvaluatePlan, say: Say) -> dict[str, Any]:
    """Make videos of the plan's prompts, score them, write the scores as JSON and return them.

    Raises:
        UserError: a prompt, photo, adapter, backbone, encoder or place cannot be used.
    """
    found: list[tuple[Path, int | None]] = [(plan.adapter, None)]
    if plan.recommend:
        found = candidates(plan.adapter)
    elif plan.strengths:
        raise ConfigError("--strength belongs to --recommend here; leave it out, or add that.")
    panel = _Panel(plan, found[-1][0])
    if not plan.recommend:
        scores = panel.score(Adapter.load(plan.adapter), say)
        result = {**scores.to_dict(), "prompts": list(panel.texts), "seeds": panel.seeds}
        write_record(plan.out, result)
        for name, value in scores.summary().items():
            say(f"{name:>18}  {'-' if value is None else f'{value:.3f}'}")
        say(f"Wrote '{plan.out}'.")
        return result
    trials = []
    for path, step in found:
        for strength in plan.strengths or STRENGTHS:
            scores = panel.score(Adapter.load(path), lambda _: None, strength)
            trials.append(Trial(path, step, strength, scores.summary()))
            say(f"Scored {len(trials)}: {trials[-1].name}")
    report(trials, recommend(trials), plan.out, say)
    say(f"Wrote '{plan.out}'.")
    return {"trials": len(trials)}


class _Panel:
    """Who judges an adapter's videos, and of what: loaded once for all that are compared."""

    def __init__(self, plan: EvaluatePlan, path: Path) -> None:
        self.seeds = [generation.check_seed(seed) for seed in plan.seeds]
        adapter = Adapter.load(path)
        specs = _known(plan.subjects, adapter.words)
        given = [word for word in adapter.words if word.name in {spec.name for spec in specs}]
        self.texts = plan.prompts or standard_prompts(given)
        self._prompts = [Prompt(text, adapter.words) for text in self.texts]
        _require_photos(self._prompts, given)
        ensure_dir(plan.out.parent)
        self._backbone = backbone_for(path, adapter, plan.backbone, plan.device)
        self._encoders = encoders_for(self._backbone, *plan.encoders, plan.device)
        self._finder = finder_for(self._backbone, plan.finder, plan.device)
        self._subjects = load_subjects(specs, plan.segmenter, self._backbone.known_nouns)
        run = path if not plan.recommend else plan.adapter / ADAPTER
        self._options = sampling_for(run, self._backbone, {})

    def score(self, adapter: Adapter, say: Say, strength: float | None = None) -> judging.Scores:
        """The scores of the adapter's videos of all prompts and seeds."""
        options = self._options
        if strength is not None:
            options = options.model_copy(update={"strength": strength})
        work = list(product(self._prompts, self.seeds))
        videos: list[Video] = []
        for prompt, seed in work:
            say(f"Making {len(videos) + 1} of {len(work)}: {prompt.text}, seed {seed}")
            videos.append(
                generation.generate(
                    self._backbone, adapter, prompt.text, seed=seed, options=options
                )
            )
        asked = [prompt for prompt, _ in work]
        return judging.evaluate(
            videos, asked, self._subjects, self._encoders, segmenter=self._finder
        )


def encoders_for(
    backbone: Backbone, clip: str | None = None, dino: str | None = None, device: str = "auto"
) -> Encoders:
    """The encoders called so, `NAME` or `NAME=MODEL`; None for those that suit `backbone`.

    Raises:
        EvaluationError: a name is unknown, or a model cannot be loaded.
    """
    kind = "toybox-" if draws_toys(backbone.name) else ""
    return Encoders.named(clip or f"{kind}clip", dino or f"{kind}dino", device)


def finder_for(
    backbone: Backbone, finder: str | None = None, device: str = "auto"
) -> InstanceSegmenter | None:
    """The finder of subjects called so, `NAME` or `NAME=MODEL`; None for the one that suits
    `backbone`, or for nobody where none does: then there are no scores from crops.

    Raises:
        EvaluationError: a name is unknown, or a model cannot be loaded.
    """
    if finder is not None:
        name, _, model = finder.partition("=")
        return resolve_segmenter(name, model or None, device)
    return resolve_segmenter("toybox", None, device) if draws_toys(backbone.name) else None


def standard_prompts(words: Sequence[LearnedWord]) -> list[str]:
    """A few plain prompts about all subjects together."""
    subjects = list_subjects(words)
    return [subjects, f"{subjects} on the beach", f"{subjects} running in the snow"]


def _require_photos(prompts: Sequence[Prompt], given: Sequence[LearnedWord]) -> None:
    """Refuse, before any video is made, prompts about subjects without photos to compare with."""
    for prompt in prompts:
        names = [word.word for word in prompt.mentioned if word not in given]
        if strangers := [*names, *prompt.unknown]:
            raise SubjectError(
                f"The prompt '{prompt.text}' mentions {strangers[0]}, whose photos are not given; "
                "add them with --subject, or leave the word out."
            )


def _known(texts: Sequence[str], words: Sequence[LearnedWord]) -> list[SubjectSpec]:
    """The subjects described by `texts`, which the adapter must have learned as `words`."""
    categories = {word.name: word.category for word in words}
    specs = [SubjectSpec.parse(text) for text in texts]
    for spec in specs:
        if spec.name not in categories:
            learned = ", ".join(word.word for word in words)
            raise SubjectError(
                f"The adapter has no word '<{spec.name}>', only {learned}; give the subjects it "
                "was trained on."
            )
    return [replace(spec, category=spec.category or categories[spec.name]) for spec in specs]
