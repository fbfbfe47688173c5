"""What a training run will need, counted before it begins: numbers, memory, work, disk.

A step is really taken, on a model without numbers (`customvideo.backbones.blank`): its tensors are
counted as they come and go, and so are its multiplications. Nothing is read, fetched or trained.
What to do about the result is `customvideo.runs.fitting`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from customvideo.adapters.adapter import Adapter
from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import Tape, watch
from customvideo.backbones.base import Backbone, TextStates, backbone_rows
from customvideo.backbones.blank import Blank, blank, staying
from customvideo.backbones.folder import placed
from customvideo.backbones.sizes import Published, cached, published
from customvideo.config import Recipe
from customvideo.errors import BackboneError
from customvideo.files import expanded
from customvideo.methods.base import Filmed, Method, PriorPlan, TuningFree, load_method
from customvideo.methods.denoising import single_frame
from customvideo.runs.ledger import Ledger
from customvideo.subjects.folders import read_photos
from customvideo.subjects.groups import read_groups
from customvideo.subjects.prompt import list_subjects
from customvideo.subjects.subject import Subject

__all__ = [
    "Case",
    "Cost",
    "Need",
    "assemble",
    "changed",
    "cost_of_step",
    "encoding_bytes",
    "need",
    "on_gpu",
]

_NUMBER = 4
"""Bytes of what is trained, whatever the model's type."""
_MOMENTS = 2
"""AdamW's, each as large as what is trained."""
_FRAMES_ENCODED = 8
"""Scenes that the trainer encodes together."""
_PICTURE = 128
"""Pixels a side of what stands for a photo."""
_OVERHEAD = 800_000_000
"""Bytes that a GPU's driver and kernels take before anything is done."""


@dataclass(frozen=True, eq=False)
class Case:
    """A run whose model has no numbers.

    Attributes:
        recipe: its settings.
        blank: the model.
        method: the method.
        subjects: stand-ins of the same names and categories.
        adapter: what is trained; None for a method that trains nothing.
        sites: where attention is watched.
        prior: which class-prior samples there will be.
        frames: frames of a training sample.
        gpu: whether it is planned for a GPU.
        clips: whether some rows of training are clips, of which nothing is counted.
    """

    recipe: Recipe
    blank: Blank
    method: Method
    subjects: Sequence[Subject]
    adapter: Adapter | None
    sites: Sequence[AttentionSite]
    prior: PriorPlan | None
    frames: int
    gpu: bool
    clips: bool = False

    @property
    def backbone(self) -> Backbone:
        return self.blank.backbone

    @property
    def canvas(self) -> tuple[int, int]:
        return self.recipe.canvas or self.backbone.size

    @property
    def rows(self) -> int:
        """Rows that go through the model together."""
        return self.recipe.batch_size + (self.prior.rows if self.prior else 0)

    @property
    def half(self) -> bool:
        """Whether forwards are in mixed precision."""
        wanted = self.recipe.precision
        return wanted in ("bf16", "fp16") or (wanted == "auto" and self.gpu)

    @property
    def host(self) -> bool:
        """Whether the text encoders are in main memory."""
        return self.gpu and self.recipe.text_encoder == "host"

    @property
    def trained(self) -> int:
        """How many numbers train."""
        if self.adapter is None:
            return 0
        return sum(parameter.numel() for parameter in self.adapter.parameters())


@dataclass(frozen=True)
class Cost:
    """One forward and backward of `rows` rows.

    Attributes:
        rows: how many.
        activations: most bytes alive at a time beside weights, gradients and optimizer.
        flops: multiplications and additions, recomputed ones included.
        forward: those of the forward alone.
    """

    rows: int
    activations: int
    flops: int
    forward: int


@dataclass(frozen=True)
class Need:
    """Bytes that a run takes where the model lies, by what takes them.

    Attributes:
        weights: the model's parts.
        trained: what is trained, its gradients, and AdamW's moments and scratch.
        activations: of a step.
        encoding: of the autoencoder, which is never at work at the same time.
        overhead: of the device.
    """

    weights: Mapping[str, int]
    trained: int
    activations: int
    encoding: int
    overhead: int

    @property
    def total(self) -> int:
        """The most that is taken at a time."""
        at_work = max(self.activations, self.encoding)
        return sum(self.weights.values()) + self.trained + at_work + self.overhead


def assemble(recipe: Recipe, device: str) -> Case:
    """The run that `recipe` describes, on a model without numbers; nothing is fetched.

    `device` may be a GPU that is not there. The photos are looked for, but no mask is made.

    Raises:
        BackboneError: what the model needs can only be known when it is fetched.
        UserError: as training would, for what is wrong with photos or settings.
    """
    method = load_method(recipe.method, recipe.method_options)
    photos = read_photos(recipe.specs)
    read_groups(recipe.group_specs, list(recipe.subjects))
    gpu = on_gpu(device)
    model = blank(_source(recipe.backbone), "bf16" if gpu else "fp32")
    nouns = model.backbone.known_nouns
    subjects = [_stand_in(found.spec.name, found.category(nouns)) for found in photos]
    case = _case(recipe, model, method, subjects, gpu)
    filmed = isinstance(method, Filmed) and any(found.films for found in photos)
    return replace(case, clips=filmed and recipe.clip_share > 0)


def changed(case: Case, recipe: Recipe) -> Case:
    """The same run with other settings of training and method."""
    method = load_method(recipe.method, recipe.method_options)
    other = _case(recipe, case.blank, method, case.subjects, case.gpu)
    return replace(other, clips=case.clips)


def on_gpu(device: str) -> bool:
    """Whether `device` means a GPU, be it there or not."""
    return device.startswith("cuda") or (
        device == "auto" and placed("auto", "auto")[0].type != "cpu"
    )


def cost_of_step(case: Case, rows: int, *, checkpointing: bool) -> Cost:
    """Take a step of `rows` rows without numbers.

    The loss is the error of the prediction and the mean of the watched maps: what the methods'
    losses add to these is small.
    """
    backbone: Any = case.backbone
    assert case.adapter is not None, "there is no step of a method that trains nothing"
    # Of networks that take turns, all rows go through the first.
    legs = {site.leg for site in backbone.sites(case.frames, *case.canvas)}
    ledger = Ledger(answer=len(legs) > 1)
    mode = getattr(case.method.config, "single_frame", "run")
    with ExitStack() as undo:
        undo.enter_context(case.blank.mode)
        if case.half:
            undo.enter_context(torch.autocast("cpu", torch.bfloat16))
        undo.enter_context(case.adapter.attach(backbone))
        undo.enter_context(single_frame(backbone, mode))
        before = getattr(backbone, "checkpointed", None)
        if before is not None:
            undo.callback(setattr, backbone, "checkpointed", before)
            backbone.checkpointed = checkpointing
        undo.callback(case.adapter.zero_grad)
        # In main memory an encoder takes nothing of the device's.
        with Ledger() if case.host else nullcontext():
            told = [list_subjects(case.adapter.words)] * rows
            text = backbone.encode_prompt(told) if case.host else None
        undo.enter_context(ledger)
        text = text or backbone.encode_prompt(told)
        latents = torch.randn(rows, *backbone.latent_shape(case.frames, *case.canvas))
        with _watched(case, text) as tape:
            predicted = backbone.predict(latents, torch.full((rows,), 500.0), text)
            forward = ledger.flops
            loss = (predicted.float() - latents).square().mean()
            for found in tape.maps(require_grad=True).values() if tape is not None else ():
                loss = loss + found.float().mean()
            del predicted, text
            loss.backward()
        gradients = case.trained * _NUMBER
        peak = max(ledger.peak - gradients, 0)
        return Cost(rows, peak, ledger.flops, forward)


def _source(name: str) -> Published | Path | str:
    """What a blank model of `name` is made of.

    Raises:
        BackboneError: it is a model on the hub of which nothing is known here.
    """
    known = published(name)
    folder = expanded(name)
    if known is not None or name in backbone_rows() or folder.is_dir() or "/" not in name:
        return known or (folder if folder.is_dir() and name not in backbone_rows() else name)
    place = cached(name)
    if place is None:
        raise BackboneError(
            f"What '{name}' needs is not known before it is fetched: download it and give its "
            f"folder, or choose one of {', '.join(sorted(backbone_rows()))}."
        )
    return place


def _case(
    recipe: Recipe, model: Blank, method: Method, subjects: Sequence[Subject], gpu: bool
) -> Case:
    backbone = model.backbone
    canvas = recipe.canvas or backbone.size
    examples = method.scenes(subjects, np.random.default_rng(recipe.seed), canvas)
    frames = len(examples[0].frames) if examples else 1
    with model.mode:
        adapter = None
        if not isinstance(method, TuningFree):
            adapter = staying(method.trainable(backbone, subjects))
        sites = method.watches(backbone, frames, *canvas)
        prior = method.prior(backbone, subjects)
    return Case(recipe, model, method, subjects, adapter, sites, prior, frames, gpu)


def _stand_in(name: str, category: str) -> Subject:
    """A subject of that name with a picture of nothing."""
    image = np.full((_PICTURE, _PICTURE, 3), 128, np.uint8)
    mask = np.zeros((_PICTURE, _PICTURE), np.float32)
    mask[_PICTURE // 4 : -_PICTURE // 4, _PICTURE // 4 : -_PICTURE // 4] = 1
    return Subject(name, f"<{name}>", category, (image,), (mask,), ("stand-in.png",))


@contextmanager
def _watched(case: Case, text: TextStates) -> Iterator[Tape | None]:
    """A tape over the case's sites, or, where padding is left out of the maps, what one would keep.

    Of how many tokens the maps are then only numbers could tell; that they are few is certain.
    """
    if case.sites and text.real is None and case.adapter is not None:
        words = case.adapter.tokens.select(text.ids)
        with watch(case.backbone.denoiser, case.sites, words) as tape:
            yield tape
        return
    rows = text.rows
    kept = [
        torch.empty(rows, site.grid[0] * site.cells, 2 * _width(case.backbone, site))
        for site in case.sites
    ]
    yield None
    del kept


def _width(backbone: Backbone, site: AttentionSite) -> int:
    layer: Any = backbone.layer(site.key)
    width: int = layer.out_features
    return width


def encoding_bytes(case: Case) -> int:
    """Most bytes alive at a time while scenes are encoded."""
    ledger = Ledger()
    count = min(case.recipe.pool or 1, _FRAMES_ENCODED)
    with case.blank.mode, torch.no_grad(), ledger:
        case.backbone.encode_frames(torch.zeros(count, case.frames, 3, *case.canvas))
    return ledger.peak


def need(case: Case, cost: Cost, encoding: int, share: float = 1.0) -> Need:
    """What the run takes, whose steps keep `share` of what the one of `cost` kept."""
    each = _NUMBER * (2 + _MOMENTS + 1)
    if case.recipe.optimizer == "adamw8bit":
        # A byte a moment, and no scratch for all at once.
        each = _NUMBER * 2 + _MOMENTS
    trained = case.trained * each
    weights = {
        name: size
        for name, size in case.blank.bytes(eight_bits=case.recipe.base != "full").items()
        if not (case.host and name.startswith("text_encoder"))
    }
    overhead = _OVERHEAD if case.gpu else 0
    activations = math.ceil(cost.activations * share)
    return Need(weights, trained, activations, encoding, overhead)
