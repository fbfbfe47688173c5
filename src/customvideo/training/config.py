"""The trainer's settings. What a method learns, and how its losses weigh, is the method's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from customvideo.attention.site import FEWEST_CELLS
from customvideo.settings import FROM_LIST, LARGEST_SEED, Settings

__all__ = ["FREE_ON_RESUME", "OF_CLIPS", "Precision", "TrainerConfig"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Side = Annotated[int, Field(ge=8)]


class TrainerConfig(Settings):
    """How long, how fast and how safely to train.

    The defaults suit ZeroScope-sized models. The paper (arXiv 2401.09962) was not available in
    full: where a comment names no source, the value is this project's choice.
    """

    steps: int = Field(default=500, ge=1)
    """Optimizer steps (diffusers' Custom Diffusion example takes 500 for several concepts)."""
    batch_size: int = Field(default=2, ge=1)
    """Composed scenes per forward; class-prior rows come on top."""
    accumulation: int = Field(default=1, ge=1)
    """Forwards per optimizer step: 4 times 1 row trains like once 4 rows, in less memory."""
    learning_rate: float = Field(default=4e-5, gt=0)
    """For the weights (effective rate of diffusers' Custom Diffusion example)."""
    word_learning_rate: float = Field(default=4e-5, gt=0)
    """For the learned words. A small model wants about a hundred times more of both."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which both rates rise linearly, at the beginning of each stage of a method;
    constant afterwards, so `steps` may grow."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """AdamW's, on the weights' deltas, where it pulls towards the base model; never on words."""
    precision: Precision = "auto"
    """Mixed precision of the forward; "auto" is bf16 on a GPU that has it and fp32 on a CPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: slower, for less memory."""
    compile: bool = False
    """Compile the parts of the frozen network that nothing is attached to (torch.compile): the
    first steps take minutes, the others a little less."""
    base: Literal["full", "int8", "fp8"] = "full"
    """Frozen weights as they are, or their linear layers in 8 bits, as integers (bitsandbytes) or
    as floats (no package, slower): half of bfloat16's memory, and predictions a little off."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """AdamW, or bitsandbytes' with moments in 8 bits, for what trains and is large."""
    text_encoder: Literal["device", "host"] = "device"
    """Where the text encoders are while training: beside the denoiser, or in main memory, where
    they are slow. With words learned at their output (`word_space`) each prompt is encoded once."""
    shard: bool = False
    """Of several processes: each keeps a part of the frozen base model and borrows the rest, block
    by block; slower, for cards that the whole does not fit. Diffusion transformers only."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    """Fixes every draw: row r of step s depends on (seed, s, r) and on nothing before it."""
    canvas: Annotated[tuple[Side, Side], FROM_LIST] | None = None
    """Training size (height, width) in pixels; the backbone's own size if absent."""
    pool: int = Field(default=64, ge=0)
    """Scenes composed and encoded once and drawn from afterwards, with fresh noise and time at
    each use; 0 composes and encodes anew for every row."""
    clip_share: float = Field(default=0.25, ge=0, le=1)
    """Share of the rows that are clips, where subjects have any and the method takes them."""
    clip_frames: Annotated[int, Field(ge=2)] | None = None
    """Frames of a training clip; as many as the backbone makes and the longest clip has if
    absent."""
    least_cells: float = Field(default=FEWEST_CELLS, ge=0)
    """Fewest cells of the finest watched attention grid that each subject's mask must cover; 0
    trains whatever it covers."""
    held_out: int = Field(default=4, ge=0)
    """Scenes kept aside to score checkpoints on; 0 keeps no best checkpoint."""
    checkpoint_every: int = Field(default=100, ge=0)
    """Steps between checkpoints; 0 saves only at the end."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints kept, besides the best."""
    preview_every: int = Field(default=0, ge=0)
    """Steps between previews; 0 for none. A checkpoint is saved before each."""
    tracker: Literal["none", "tensorboard", "wandb", "trackio"] = "none"
    """Where to log besides the progress bar and `losses.jsonl`."""
    start_from: str = ""
    """An adapter to go on from: its words, which must be among the subjects', stay as they are, and
    its deltas train on, as an imported one's do; empty to start anew."""
    prior_cache: str = ""
    """Folder for class-prior samples, shared by all runs; empty for the user's cache folder."""

    @property
    def base_type(self) -> str:
        """What `load_backbone` is told as the type for `base`."""
        return "auto" if self.base == "full" else self.base


FREE_ON_RESUME = frozenset(
    {
        *("steps", "checkpoint_every", "keep_checkpoints", "preview_every", "tracker"),
        *("prior_cache", "least_cells", "text_encoder", "shard"),
    }
)
"""Settings that may change when a run is resumed: none of them moves its trajectory."""
OF_CLIPS = frozenset({"clip_share", "clip_frames"})
"""Settings that say nothing of a run without clips."""
