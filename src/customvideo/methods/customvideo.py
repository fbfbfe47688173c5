"""CustomVideo (Wang et al., arXiv 2401.09962): several subjects learned together.

Two ideas. *Co-occurrence*: all subjects are composed into one training image, so that the model
learns to show them together. *Attention control*: where the denoiser reads a subject's learned
word, its cross-attention map is pulled towards the subject's mask, so that the subjects stay
apart. What trains is one word per subject and the key and value weights of the text
cross-attention, nothing else unless a setting says so; photos are enough, no video is needed.

Every setting below says whether the paper states it or we chose it: its full text and code were
not available to this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.adapters.build import AdapterConfig, DeltaSpec, new_adapter
from customvideo.adapters.gates import GateKind
from customvideo.adapters.tokens import WordSpace
from customvideo.attention.losses import attention_loss
from customvideo.attention.site import AttentionSite, intermediate, level
from customvideo.attention.tape import Tape
from customvideo.backbones.base import Backbone, LayerGroup
from customvideo.errors import ConfigError
from customvideo.methods.base import Batch, Example, PriorPlan, check_template, class_columns
from customvideo.methods.clips import ClipLook, clip_example
from customvideo.methods.denoising import row_losses, row_means, single_frame, squared_error
from customvideo.methods.photos import PhotoPrompt
from customvideo.methods.scaling import scaled, valid_cells
from customvideo.methods.separate import learned_words, one_subject, scene_prompt
from customvideo.settings import FROM_LIST, Settings, suggest
from customvideo.subjects.masks import boxed
from customvideo.subjects.moving import ClipShape
from customvideo.subjects.prompt import TEMPLATES, Prompt, training_prompt
from customvideo.subjects.scene import Style, compose, natural
from customvideo.subjects.subject import Subject

__all__ = ["CustomVideo", "CustomVideoConfig"]


class CustomVideoConfig(Settings):
    """CustomVideo's settings. "Stated" means stated by the paper, "choice" that we chose."""

    compose: Literal["paste", "panel", "mixed", "separate", "scaled"] = "panel"
    """How subjects share an image: side by side in panels, or cut out and pasted at random; one
    or the other at random if mixed. That they share one is stated, how is a choice. To compare
    with, `separate` shows one of them at a time, and `scaled` does so as Custom Diffusion, on
    its blank canvas, where no error counts, and with what it puts before its prompt."""
    alone: float = Field(default=0.0, ge=0, le=1)
    """Share of the scenes that show one of them at a time all the same (choice; in a scene of
    several each is small, and what is small on it is lost)."""
    group_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the scenes that are group photos of them, if any were given: nothing is composed
    there (choice)."""
    prompts: Annotated[tuple[PhotoPrompt, ...], Field(min_length=1), FROM_LIST] = TEMPLATES
    """Prompts of the scenes, one at random for each (choice)."""
    background: Literal["keep", "plain", "random"] = "keep"
    """What lies behind the subjects: their photos (pasted cut-outs get one of them, blurred and
    emptied), light grey, or a colour drawn anew (choice; without their backgrounds subjects
    risked losing their identity in a related study)."""

    attention_weight: float = Field(default=0.2, ge=0)
    """Weight of attention control; 0 switches it off and opens no watch (choice: raw `mse` is
    damped by the softmax and needs about 0.2, on the toybox 4; `bce` and `mse_maxnorm` about 0.01,
    `share` 0.2)."""
    attention_loss: Literal["mse", "mse_maxnorm", "bce", "inner", "share"] = "mse"
    """Form of the loss between map and mask (choice; `customvideo.attention.losses`)."""
    nu: float = Field(default=0.05, ge=0)
    """Depth of the negative target outside the mask ("a small negative value": stated; how
    small: choice). `bce` and `share` have no such target."""
    outside: Literal["all", "others"] = "all"
    """What counts as outside: everything else, or the other subjects only (choice)."""
    reads: Literal["word", "phrase"] = "word"
    """Whose map is held to the mask: the learned word's (stated), or the mean of it and of its
    category's, `<tom> cat` (choice; the text encoder lets later tokens know of earlier ones, so
    what is learned is read at both)."""
    mask_shape: Literal["outline", "box"] = "outline"
    """What stands for a subject in both losses: its mask (stated), or, to compare with, the
    smallest upright box around it."""
    level: int = Field(default=0, ge=0)
    """Which attention grid is watched alone, counted from the finest, 1; 0 for all of the sizes
    below."""
    level_low: int = Field(default=90, ge=1)
    """Fewest positions of an attention grid that is watched ("intermediate-sized layers": stated;
    the bounds: choice)."""
    level_high: int = Field(default=800, ge=1)
    """Most positions of an attention grid that is watched."""
    sites: Annotated[tuple[str, ...], FROM_LIST] = ()
    """Paths of the attention modules that are watched, whatever their size, such as those that
    `customvideo sites` found best; none to go by level and size (choice)."""

    vectors: int = Field(default=1, ge=1, le=8)
    """Learned embedding vectors per word (one word per subject: stated)."""
    initial: Literal["category", "rare", "random"] = "category"
    """What the words start from: the category's own embedding, rare tokens, or noise (choice;
    Custom Diffusion takes rare tokens)."""
    word_space: WordSpace = "input"
    """Where the words are learned: as rows of the text encoder's input table (stated), or added to
    what it puts out where they stand. Then every prompt is encoded once, and the encoder is at rest
    while the rest trains; what later tokens know of the word is lost (choice, for text encoders of
    billions of parameters)."""
    train: Literal["words", "kv", "kvqo", "kvqo+self"] = "kv"
    """What trains, each step on top of the one before: the words alone; keys and values of text
    (stated); queries for text and what comes out of it; low rank on attention within a frame."""
    rank: int = Field(default=0, ge=0)
    """Rank of the deltas of text attention; 0 trains full matrices (stated)."""
    self_rank: int = Field(default=16, ge=1)
    """Rank of the deltas of attention within a frame (choice)."""
    bos_rule: bool = False
    """Whether the first text position, which begins every prompt, trains no key and no value
    (choice; Custom Diffusion: yes)."""

    masked_weight: float = Field(default=1.0, gt=0)
    """How much more an error inside a subject's mask counts; 1 is the plain loss (stated)."""
    single_frame: Literal["run", "skip", "repeat"] = "run"
    """How a photo passes the temporal layers: as a video of one frame, past them, or repeated to
    a whole clip (choice; training on images alone is stated)."""

    prior_weight: float = Field(default=1.0, ge=0)
    """Weight of class-prior preservation (DreamBooth); 0 switches it off (choice)."""
    prior_prompt: Annotated[str, AfterValidator(check_template)] = "a {category}"
    """Prompt of the prior samples."""
    prior_samples: int = Field(default=200, ge=1)
    """One-frame prior samples per category (Custom Diffusion's number)."""
    prior_rows: int = Field(default=2, ge=1)
    """Prior rows beside each batch."""
    prior_clips_every: int = Field(default=0, ge=0)
    """Steps between passes over a prior clip, which hold on to motion; 0 for none."""
    prior_clip_samples: int = Field(default=8, ge=1)
    """Prior clips per category."""
    prior_sampling_steps: int = Field(default=25, ge=1)
    """Denoising steps per prior sample."""
    prior_guidance: float = Field(default=7.5, ge=1)
    """Guidance scale of the prior samples."""

    gate: GateKind = "none"
    """Where the deltas of keys and values are heard: everywhere (stated); or at the learned words
    alone, or at these and the token after each, where its category begins (choice; all prompts
    without a learned word, the negative one too, are then the base model's own, and there is no
    prior to preserve)."""


class CustomVideo:
    """The method as `customvideo.methods.base.Method` asks for it."""

    name: str = "customvideo"
    config_class: ClassVar[type[Settings]] = CustomVideoConfig

    def __init__(self, config: CustomVideoConfig | None = None) -> None:
        self.config: CustomVideoConfig = config or CustomVideoConfig()

    def trainable(self, backbone: Backbone, subjects: Sequence[Subject]) -> Adapter:
        """One word per subject, and deltas on as many layers as `train` says."""
        config = self.config
        learned = AdapterConfig(
            space=self.config.word_space,
            vectors=config.vectors,
            initial=config.initial,
            gate=config.gate,
        )
        return new_adapter(
            backbone,
            subjects,
            method=self.name,
            paths=self._deltas(backbone),
            config=learned,
            settings=self.config.model_dump(mode="json"),
        )

    def scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> list[Example]:
        """One image with all subjects in it, and a prompt that names them in random order."""
        if group := self._group(subjects, rng, canvas):
            return [self._shaped(group)]
        style = self.config.compose
        apart = self.config.alone > 0 and rng.random() < self.config.alone
        if apart or style == "separate" or style == "scaled":
            return [self._shaped(self._alone(subjects, rng, canvas))]
        if style == "mixed":
            style = "paste" if rng.random() < 0.5 else "panel"
        scene = compose(subjects, rng, canvas, style=style, background=self.config.background)
        words = learned_words(subjects, self.config.vectors)
        # A caption speaks of a background, which cut-outs have left behind.
        shown = scene if style == "panel" and self.config.background == "keep" else None
        prompt = scene_prompt(subjects, words, rng, self.config.prompts, shown)
        return [self._shaped(Example(scene.image[None], scene.masks, prompt))]

    def clip_scenes(
        self, subjects: Sequence[Subject], rng: np.random.Generator, shape: ClipShape
    ) -> list[Example]:
        """One clip with all subjects in it, or with one of those that have clips (choice; training
        on images alone is stated)."""
        apart = self.config.alone > 0 and rng.random() < self.config.alone
        style: Style = "panel" if self.config.compose == "panel" else "paste"
        if self.config.compose == "mixed":
            style = "paste" if rng.random() < 0.5 else "panel"
        look = ClipLook(
            apart or self.config.compose in ("separate", "scaled"),
            style,
            self.config.background,
            self.config.prompts,
        )
        words = learned_words(subjects, self.config.vectors)
        example = clip_example(subjects, words, rng, shape, look)
        return [self._shaped(example)]

    def watches(
        self, backbone: Backbone, frames: int, height: int, width: int
    ) -> list[AttentionSite]:
        """The text cross-attention sites of intermediate size or of one level, if attention control
        is on."""
        if self.config.attention_weight == 0:
            return []
        with single_frame(backbone, self.config.single_frame):
            sites = backbone.sites(frames, height, width)
        if self.config.sites:
            return _called(sites, self.config.sites, backbone.name)
        if self.config.level:
            return level(sites, self.config.level)
        return intermediate(sites, self.config.level_low, self.config.level_high)

    def columns(self, batch: Batch) -> Tensor:
        """The text positions whose maps are held to the masks (row, word, token)."""
        if self.config.reads == "word":
            return batch.words
        found = batch.words + class_columns(batch.words)
        return found / found.sum(dim=-1, keepdim=True).clamp(min=1)

    def prior(self, backbone: Backbone, subjects: Sequence[Subject]) -> PriorPlan | None:
        """Pictures, and clips if asked for, of each subject's category; none with a gate, which
        keeps prompts without learned words as they are."""
        if self.config.prior_weight == 0 or self.config.gate != "none":
            return None
        return PriorPlan(
            categories=tuple(sorted({subject.category for subject in subjects})),
            template=self.config.prior_prompt,
            samples=self.config.prior_samples,
            rows=self.config.prior_rows,
            clips_every=self.config.prior_clips_every,
            clip_samples=self.config.prior_clip_samples,
            clip_frames=backbone.frames,
            sampling_steps=self.config.prior_sampling_steps,
            guidance=self.config.prior_guidance,
        )

    def mask_uses(self) -> list[str]:
        """Attention control, and whatever else is switched on."""
        config = self.config
        uses = {
            "attention control": config.attention_weight > 0,
            "weighted errors": config.masked_weight != 1,
            "cut-outs": config.compose in ("paste", "mixed"),
            "other backgrounds": config.background != "keep",
        }
        return [name for name, used in uses.items() if used]

    def losses(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> dict[str, Tensor]:
        """L = L_rec + alpha L_prior + beta L_attention, each left out where it does not apply."""
        errors = self._errors(backbone, batch, self.config.masked_weight)
        losses = row_losses(errors, batch, self.config.prior_weight)
        if tape is not None:
            losses["attention"] = self._attention(batch, tape)
        return losses

    def score(self, backbone: Backbone, batch: Batch, tape: Tape | None) -> Tensor:
        """The error inside the subjects' masks, plus weighted attention control.

        What lies behind the subjects in held-out scenes is nothing the adapter should know.
        """
        inside = self._errors(backbone, batch, weight=None).mean()
        return inside if tape is None else inside + self._attention(batch, tape)

    def _group(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> Example | None:
        """One of the group photos, if there are any and it is their turn."""
        photos = dict.fromkeys(photo for one in subjects for photo in one.together)
        if not photos or rng.random() >= self.config.group_share:
            return None
        photo = list(photos)[int(rng.integers(len(photos)))]
        scene = natural(photo, subjects, rng, canvas)
        words = learned_words(subjects, self.config.vectors)
        if photo.caption:
            return Example(scene.image[None], scene.masks, Prompt(photo.caption, words))
        shown = [word for word in words if word.name in photo.masks]
        asked = training_prompt(shown, rng, templates=self.config.prompts)
        return Example(scene.image[None], scene.masks, Prompt(asked.text, words))

    def _alone(
        self, subjects: Sequence[Subject], rng: np.random.Generator, canvas: tuple[int, int]
    ) -> Example:
        """One image with one of the subjects in it."""
        example = one_subject(
            subjects,
            rng,
            canvas,
            vectors=self.config.vectors,
            background=self.config.background,
            templates=self.config.prompts,
        )
        return scaled(example, rng) if self.config.compose == "scaled" else example

    def _shaped(self, example: Example) -> Example:
        """The example with its masks in the shape that the losses are to see."""
        if self.config.mask_shape == "outline":
            return example
        return replace(example, masks=boxed(example.masks))

    def _deltas(self, backbone: Backbone) -> dict[str, DeltaSpec]:
        rank, self_rank = self.config.rank or None, self.config.self_rank
        ladder: list[tuple[str, LayerGroup, DeltaSpec]] = [
            ("kv", "text_kv", DeltaSpec(rank=rank, holds_first=self.config.bos_rule)),
            ("kvqo", "text_qo", DeltaSpec(rank=rank)),
            ("kvqo+self", "self", DeltaSpec(rank=self_rank)),
        ]
        deltas: dict[str, DeltaSpec] = {}
        for name, group, spec in ladder if self.config.train != "words" else ():
            # Where text and video share an attention, its layers are of several groups.
            deltas = deltas | {p: spec for p in backbone.layers(group) if p not in deltas}
            if name == self.config.train:
                break
        return deltas

    def _errors(self, backbone: Backbone, batch: Batch, weight: float | None) -> Tensor:
        """Squared error of the prediction, one mean a row (row,), float32.

        Errors inside the masks count `weight` times, outside once, or not at all if it is None.
        """
        error = squared_error(backbone, batch, frame_mode=self.config.single_frame)
        inside = batch.masks.amax(dim=1)
        counts = inside if weight is None else 1 + (weight - 1) * inside
        valid = valid_cells(batch)
        return row_means(error, counts * (valid[:, None] if batch.moving else valid))

    def _attention(self, batch: Batch, tape: Tape) -> Tensor:
        # In training a map without gradient would make the term vanish silently.
        maps = tape.maps(require_grad=torch.is_grad_enabled())
        loss = attention_loss(
            maps,
            batch.masks,
            batch.present,
            form=self.config.attention_loss,
            nu=self.config.nu,
            outside=self.config.outside,
        )
        return self.config.attention_weight * loss


def _called(
    sites: Sequence[AttentionSite], paths: Sequence[str], backbone: str
) -> list[AttentionSite]:
    """The sites at `paths`, in the order of execution."""
    known = [site.path for site in sites]
    if unknown := [path for path in paths if path not in known]:
        raise ConfigError(
            f"'{backbone}' reads no text at '{unknown[0]}'{suggest(unknown[0], known)} "
            "'customvideo sites' shows where it does."
        )
    return [site for site in sites if site.path in paths]
