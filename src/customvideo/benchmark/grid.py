"""From a plan to jobs: which combinations, which trainings, which videos, and what each depends on.

A job is one entry on one combination: a training and its videos. Its digest says everything its
results depend on, so that a job that was done is known again whatever it is called, and one that
would come out differently is another job. How a job is done is `customvideo.benchmark.job`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from customvideo.backbones.base import Backbone
from customvideo.benchmark.editions import Combination, Edition
from customvideo.benchmark.plan import BASE, CEILING, BenchPlan, Entry
from customvideo.config import Recipe, whole_recipe
from customvideo.errors import BenchmarkError, ConfigError
from customvideo.methods.base import load_method
from customvideo.methods.rendering import Mixes
from customvideo.subjects.subject import Subject
from customvideo.training.config import FREE_ON_RESUME
from customvideo.training.session import resolve_precision

__all__ = [
    "RESULTS_VERSION",
    "Contender",
    "Job",
    "Kind",
    "Made",
    "Sample",
    "choose",
    "job_of",
    "make_jobs",
    "reference_job",
]

RESULTS_VERSION = 1
"""Raised whenever the same job would come out differently: results of another version are kept
apart."""

Kind = Literal["trained", "base", "true"]
"""Videos of what was trained, of the model that learned nothing, or of the subjects themselves."""

Sample = tuple[int, int]
"""Which of the combination's prompts, and the seed."""

_SAME, _DIFFERENT = "same-category", "different-category"
_IRRELEVANT = (FREE_ON_RESUME - {"steps"}) | {"subjects", "masks"}
"""Keys of a recipe that no result depends on; photos and masks are told by the subjects."""
_OF_ADAPTERS = {"strength", "regions", "regions_begin"}
"""Keys of sampling that mean something with an adapter alone."""
_DIGITS = 20


@dataclass(frozen=True)
class Made:
    """What a job is made of besides its recipe.

    Attributes:
        backbone: the base model's fingerprint.
        precision: what the recipe's precision means there.
        subjects: (name, category, digest of photos and masks) in the combination's order.
        ingredients: (name, what tells it apart) of the method's other models.
    """

    backbone: str
    precision: str
    subjects: tuple[tuple[str, str, str], ...]
    ingredients: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Job:
    """One entry on one combination.

    Attributes:
        kind: whose videos they are.
        method: the entry's label.
        combination: the combination's name.
        prompts: all of the combination's prompts, in canonical form.
        samples: the videos that are asked for.
        recipe: everything else, without subjects; its seed is this training's.
        made: what it is made of.
    """

    kind: Kind
    method: str
    combination: str
    prompts: tuple[str, ...]
    samples: tuple[Sample, ...]
    recipe: Recipe
    made: Made

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.method} on {self.combination}"

    @property
    def digest(self) -> str:
        """Of all that the results depend on; which videos are asked for and the label are not."""
        return self._digest(self._made_with())

    @property
    def essence(self) -> str:
        """As `digest`, but the same for jobs whose results must be the same to the last bit."""
        made = self._made_with()
        if made["recipe"]["sampling"].get("regions") == "alike" and not self._has_alike:
            # Nobody is to be kept apart: the very videos of the plain sampler.
            made["recipe"]["sampling"] |= {"regions": "off"}
        return self._digest(made)

    def _digest(self, made: Mapping[str, Any]) -> str:
        subjects, prompts = self.to_dict()["subjects"], list(self.prompts)
        return _sha({**made, "subjects": subjects, "prompts": prompts})

    @property
    def series(self) -> str:
        """Digest of what the jobs of one label share: the same for all combinations and seeds."""
        told = self._made_with()
        told["recipe"].pop("seed", None)
        return _sha(told)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects' names."""
        return tuple(name for name, _, _ in self.made.subjects)

    @property
    def _has_alike(self) -> bool:
        """Whether two subjects are of one category."""
        categories = [category for _, category, _ in self.made.subjects]
        return len(set(categories)) < len(categories)

    def to_dict(self) -> dict[str, Any]:
        """The job as `job_of` reads it, ready for JSON; lists of names and texts come first."""
        return {
            "kind": self.kind,
            "method": self.method,
            "combination": self.combination,
            "subjects": [
                {"name": name, "category": category, "photos": digest}
                for name, category, digest in self.made.subjects
            ],
            "prompts": list(self.prompts),
            "samples": [list(sample) for sample in self.samples],
            "recipe": self.recipe.model_dump(mode="json"),
            "backbone": self.made.backbone,
            "precision": self.made.precision,
            "results": RESULTS_VERSION,
            **self._ingredients(),
        }

    def _ingredients(self) -> dict[str, dict[str, str]]:
        """Nothing for methods without any, whose digests do not know of them."""
        told = dict(self.made.ingredients)
        return {"ingredients": told} if told else {}

    def _made_with(self) -> dict[str, Any]:
        recipe = self.to_dict()["recipe"]
        if self.kind == "trained":
            kept = {key: value for key, value in recipe.items() if key not in _IRRELEVANT}
            # A folder's path is not what the model is.
            kept.pop("backbone")
        else:
            # Nothing was trained: how videos are drawn is all that counts.
            drawn = recipe["sampling"].items()
            kept = {"sampling": {key: value for key, value in drawn if key not in _OF_ADAPTERS}}
        return {
            "results": RESULTS_VERSION,
            "kind": self.kind,
            "recipe": kept,
            "backbone": self.made.backbone,
            "precision": self.made.precision,
            **self._ingredients(),
        }


def job_of(told: Mapping[str, Any]) -> Job:
    """The job that `Job.to_dict` told of."""
    people = tuple((one["name"], one["category"], one["photos"]) for one in told["subjects"])
    samples = tuple((int(prompt), int(seed)) for prompt, seed in told["samples"])
    ingredients = tuple(told.get("ingredients", {}).items())
    return Job(
        cast("Kind", told["kind"]),
        told["method"],
        told["combination"],
        tuple(told["prompts"]),
        samples,
        whole_recipe(told["recipe"]),
        Made(told["backbone"], told["precision"], people, ingredients),
    )


def choose(plan: BenchPlan, edition: Edition) -> list[Combination]:
    """The edition's combinations that the plan asks for, in the edition's order.

    Raises:
        BenchmarkError: a name is unknown, nothing is left, or a combination has a single subject.
    """
    wanted = list(edition.combinations)
    names, sizes, kinds = _sorted_out(plan.only, edition)
    if names:
        wanted = [one for one in wanted if one.name in names]
    if sizes:
        wanted = [one for one in wanted if one.size in sizes]
    if len(kinds) == 1:
        wanted = [one for one in wanted if edition.same_category(one) == (_SAME in kinds)]
    if plan.pairs is not None:
        pairs = [one for one in wanted if one.size == 2]
        count = min(plan.pairs, len(pairs))
        wanted = [pairs[index * len(pairs) // count] for index in range(count)]
    if not wanted:
        raise BenchmarkError(
            f"Nothing of the edition '{edition.name}' is left; ask for other combinations."
        )
    for one in wanted:
        if one.size < 2:
            raise BenchmarkError(
                f"The combination '{one.name}' of the edition '{edition.name}' has a single "
                "subject; the benchmark is about several together: give it two, or leave it out."
            )
    return wanted


@dataclass(frozen=True)
class Contender:
    """An entry, and what its base model and its method's other models are where it runs."""

    entry: Entry
    backbone: str
    precision: str
    ingredients: tuple[tuple[str, str], ...] = ()

    @classmethod
    def on(cls, backbone: Backbone, entry: Entry) -> Contender:
        """The entry on its loaded backbone.

        Raises:
            ConfigError: another model of its method cannot be used, or the base model is asked for
                in another type than all entries share.
        """
        recipe = entry.recipe
        if recipe.base_type != "auto":
            raise ConfigError(
                f"The entry '{entry.label}' asks for base={recipe.base}; the benchmark compares "
                "all entries on one base model, as it is: leave it out."
            )
        method = load_method(recipe.method, recipe.method_options)
        try:
            mixed = method.ingredients(backbone) if isinstance(method, Mixes) else {}
        except ConfigError as error:
            raise ConfigError(f"In the entry '{entry.label}': {error}") from error
        precision = resolve_precision(recipe, backbone)
        return cls(entry, backbone.fingerprint, precision, tuple(mixed.items()))


def make_jobs(
    plan: BenchPlan, combination: Combination, subjects: Sequence[Subject], contender: Contender
) -> list[Job]:
    """One job for each training of the contender on the combination."""
    jobs = []
    for training in range(plan.trainings):
        recipe = contender.entry.recipe
        seeded = recipe.model_copy(update={"seed": recipe.seed + training})
        samples = _samples(plan, combination, plan.seeds_of(training))
        jobs.append(_job("trained", combination, subjects, contender, samples, seeded))
    return jobs


def reference_job(
    kind: Kind,
    plan: BenchPlan,
    combination: Combination,
    subjects: Sequence[Subject],
    base: Contender,
) -> Job:
    """The job of what stands beside the entries: a video for each that any training makes."""
    samples = _samples(plan, combination, range(plan.seeds * plan.trainings))
    job = _job(kind, combination, subjects, base, samples, base.entry.recipe)
    return replace(job, method=BASE if kind == "base" else CEILING)


def _job(
    kind: Kind,
    combination: Combination,
    subjects: Sequence[Subject],
    contender: Contender,
    samples: tuple[Sample, ...],
    recipe: Recipe,
) -> Job:
    people = tuple((one.name, one.category, one.digest) for one in subjects)
    # What nothing was trained for is drawn by the plain sampler alone.
    mixed = contender.ingredients if kind == "trained" else ()
    made = Made(contender.backbone, contender.precision, people, mixed)
    label, prompts = contender.entry.label, tuple(combination.prompts)
    return Job(kind, label, combination.name, prompts, samples, recipe, made)


def _sha(told: Mapping[str, Any]) -> str:
    text = json.dumps(told, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _samples(plan: BenchPlan, combination: Combination, seeds: Iterable[int]) -> tuple[Sample, ...]:
    prompts = range(min(plan.prompts or len(combination.prompts), len(combination.prompts)))
    seeds = list(seeds)
    return tuple((prompt, seed) for prompt in prompts for seed in seeds)


def _sorted_out(only: Sequence[str], edition: Edition) -> tuple[set[str], set[int], set[str]]:
    """The names, sizes and kinds among what is to be left."""
    names: set[str] = set()
    sizes: set[int] = set()
    kinds: set[str] = set()
    for text in only:
        if text in (_SAME, _DIFFERENT):
            kinds.add(text)
        elif text.isdecimal():
            sizes.add(int(text))
        else:
            names.add(edition.combination(text).name)
    return names, sizes, kinds
