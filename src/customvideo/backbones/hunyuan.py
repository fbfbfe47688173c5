"""HunyuanVideo: a text-to-video diffusion transformer that reads LLaMA's text beside the video.

Kong et al. 2024 (arXiv 2412.03603), in the format of diffusers' HunyuanVideoPipeline. Its first
("double") blocks give video and text projections of their own and let them attend to each other
and themselves at once; its last ("single") blocks project both by the same weights. The released
model was distilled to be told how much it shall be guided.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from customvideo.attention.site import AttentionSite
from customvideo.backbones.base import TextStates, TextTable
from customvideo.backbones.folder import Card, has
from customvideo.backbones.noise import Flow
from customvideo.backbones.transformer import Loaded, Transformer, load_pipeline
from customvideo.errors import BackboneError
from customvideo.quiet import without_warnings
from customvideo.subjects.prompt import article

__all__ = ["Hunyuan", "load", "load_hunyuan"]

_TEMPLATE: str = DEFAULT_PROMPT_TEMPLATE["template"]
_TOKENS = 256
"""Text tokens the network reads, padding included, those of the template before the text left out;
the pipeline's number."""
_POOLED_TOKENS = 77
"""Tokens that CLIP reads."""
_LAYER = -3
"""The hidden states that the network reads: two of LLaMA's layers are skipped (pipeline)."""
_UNGUIDED = 1.0
"""What a guided network is told where nothing guides it. Guidance by 1 is the prediction itself, so
this is what an error against noise and data is of; distillation drew scales from 1 to 8 (paper)."""
_PARTS = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "vae", "transformer")


class Hunyuan(Transformer):
    """A frozen HunyuanVideoPipeline model.

    LLaMA reads the text inside the pipeline's template, and learned words. CLIP tells the network
    about the whole prompt in one vector; it cannot learn words and reads the prompt without them:
    `a <tom> cat` is `a cat` to it.
    """

    family = "hunyuan"
    encoders = ("text_encoder", "text_encoder_2")

    def __init__(self, loaded: Loaded, device: torch.device) -> None:
        super().__init__(loaded, device)
        pipeline = self._pipeline
        self._noise = Flow(loaded.scheduler_config, times=_visit)
        self._begin = _template_tokens(pipeline.tokenizer)
        self._ordinary = frozenset(pipeline.tokenizer.get_added_vocab())
        self._tables = [
            TextTable(tokenizer, encoder.get_input_embeddings(), length)
            for tokenizer, encoder, length in (
                (pipeline.tokenizer, pipeline.text_encoder, _TOKENS),
                (pipeline.tokenizer_2, pipeline.text_encoder_2, _POOLED_TOKENS),
            )
        ]

    @property
    def noise(self) -> Flow:
        return self._noise

    @property
    def guided_inside(self) -> bool:
        """Whether the network is told the guidance; see `customvideo.backbones.base`."""
        return bool(self._pipeline.transformer.config.guidance_embeds)

    def tables(self) -> list[TextTable]:
        return self._tables

    def _encode(self, texts: Sequence[str]) -> TextStates:
        read = self._tables[0].tokenizer(
            [_TEMPLATE.format(text) for text in texts],
            padding="max_length",
            max_length=self._begin + _TOKENS,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        ids, mask = read.input_ids.to(self.text_device), read.attention_mask.to(self.text_device)
        found = self._pipeline.text_encoder(
            ids, attention_mask=mask, output_hidden_states=True, use_cache=False
        )
        text = slice(self._begin, None)
        return TextStates(
            found.hidden_states[_LAYER][:, text],
            ids[:, text],
            real=mask[:, text].bool(),
            pooled=self._encode_pooled(texts),
        )

    def _encode_pooled(self, texts: Sequence[str]) -> Tensor:
        """CLIP's vectors (row, dim)."""
        learned = self._tables[0].tokenizer.get_added_vocab().keys() - self._ordinary
        read = self._tables[1].tokenizer(
            [_without(text, learned) for text in texts],
            padding="max_length",
            max_length=_POOLED_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        pooled: Tensor = self._pipeline.text_encoder_2(
            read.input_ids.to(self.text_device)
        ).pooler_output
        return pooled

    @torch.no_grad()
    def encode_frames(self, frames: Tensor) -> Tensor:
        scaled: Tensor = self._codes(frames) * self._pipeline.vae.config.scaling_factor
        return scaled

    @torch.no_grad()
    def decode_frames(self, latents: Tensor) -> Tensor:
        scale = self._pipeline.vae.config.scaling_factor
        return self._pixels(latents.to(self.device).float() / scale)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        config = self._pipeline.vae.config
        time, space = config.temporal_compression_ratio, config.spatial_compression_ratio
        step = space * self._pipeline.transformer.config.patch_size
        self._check_frames(frames, time)
        if min(height, width) < 1 or height % step or width % step:
            raise BackboneError(
                f"Backbone '{self.name}' cannot make {height}x{width} pixels: choose height and "
                f"width that are multiples of {step}."
            )
        return config.latent_channels, (frames - 1) // time + 1, height // space, width // space

    def sites(self, frames: int, height: int, width: int) -> list[AttentionSite]:
        """The double blocks. In the single ones video and text share their projections, so there
        is no key or value of text alone that could be trained."""
        _, time, down, across = self.latent_shape(frames, height, width)
        network = self._pipeline.transformer
        patch = network.config.patch_size
        grid = (time // network.config.patch_size_t, down // patch, across // patch)
        found = []
        for index, block in enumerate(network.transformer_blocks):
            path = f"transformer_blocks.{index}.attn"
            key, value = f"{path}.add_k_proj", f"{path}.add_v_proj"
            found.append(
                AttentionSite(path, "joint", grid, block.attn.heads, key, value, text_first=False)
            )
        return found

    def predict_guided(
        self, latents: Tensor, time: Tensor, text: TextStates, negative: TextStates, guidance: float
    ) -> Tensor:
        if not self.guided_inside:
            return super().predict_guided(latents, time, text, negative, guidance)
        times = time.reshape(-1)[:1].to(latents.device).expand(len(latents))
        with self.reads(text.ids), self._asked("text"):
            return self._call(latents, times, text, guidance)

    def _predict(self, latents: Tensor, times: Tensor, text: TextStates) -> Tensor:
        return self._call(latents, times, text, _UNGUIDED)

    def _call(self, latents: Tensor, times: Tensor, text: TextStates, guidance: float) -> Tensor:
        assert text.real is not None and text.pooled is not None, "encoded by this backbone"
        # In the network's own type, as the pipeline makes it: bfloat16 knows 6016 and not 6000.
        told = torch.full((len(latents),), guidance, dtype=self.dtype, device=latents.device)
        found: Tensor = self._pipeline.transformer(
            hidden_states=latents.to(self.dtype),
            timestep=times,
            encoder_hidden_states=text.states.to(self.dtype),
            encoder_attention_mask=text.real,
            pooled_projections=text.pooled.to(self.dtype),
            guidance=told * 1000.0 if self.guided_inside else None,
            return_dict=False,
        )[0]
        return found.to(latents.dtype)

    def _self_layers(self) -> list[str]:
        """Those of the double blocks: the single ones' are the text's, too."""
        parts = ("to_q", "to_k", "to_v", "to_out.0")
        return [f"{site.path}.{part}" for site in self.sites(1, *self.size) for part in parts]


def _template_tokens(tokenizer: Any) -> int:
    """How many tokens the template puts before the text; LLaMA's makes 95 of it."""
    return len(tokenizer(_TEMPLATE.partition("{}")[0]).input_ids)


def _without(text: str, learned: Collection[str]) -> str:
    """`text` without learned tokens; an article before one follows its new neighbour."""
    if not learned:
        return text
    # The longest first: `<tom>_1` begins with `<tom>`.
    spelt = "|".join(re.escape(token) for token in sorted(learned, key=len, reverse=True))
    mention = re.compile(rf"(?:\b(an?)\s+)?(?:(?:{spelt})\s*)+(\w+)?", re.IGNORECASE)

    def written(found: re.Match[str]) -> str:
        before, noun = found.groups(default="")
        if not before or not noun:
            return f"{before} {noun}".lstrip()
        right = article(noun)
        return f"{right.capitalize() if before[0] == 'A' else right} {noun}"

    return mention.sub(written, text)


def _visit(solver: Any, steps: int, latents: Tensor) -> None:
    """Evenly spaced levels from 1 to above 0, which the solver then shifts (the pipeline's way)."""
    if isinstance(solver, FlowMatchEulerDiscreteScheduler):
        solver.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1], device=latents.device)
    else:
        solver.set_timesteps(steps, device=latents.device)


def load(name: str | Path, device: str = "auto", dtype: str = "auto") -> Hunyuan:
    """Load a HunyuanVideoPipeline folder, or a model by its hub id.

    Raises:
        BackboneError: it is incomplete, damaged, of another kind, or cannot be fetched.
    """
    usual = Card("", fps=24.0, frames=129, size=(720, 1280))
    loaded, where = load_pipeline(name, HunyuanVideoPipeline, usual, _PARTS, device, dtype)
    loaded.pipeline.tokenizer = _as_saved(loaded.pipeline.tokenizer)
    return Hunyuan(loaded, where)


def _as_saved(tokenizer: Any) -> Any:
    """The tokenizer as its own file describes it.

    transformers 5 splits text as LLaMA 2's tokenizer does whenever the folder calls it a
    LlamaTokenizer, as this one's is; LLaMA 3 is of another kind, and spaces would get lost.
    """
    folder = Path(tokenizer.name_or_path)
    if has(folder, "tokenizer.json"):
        with without_warnings("transformers"):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    # The network takes the first tokens for the real ones, so padding comes last.
    tokenizer.padding_side = "right"
    return tokenizer


def load_hunyuan(device: str = "auto", dtype: str = "auto") -> Hunyuan:
    """HunyuanVideo: 129 frames of 720x1280, 24 a second."""
    return load("hunyuanvideo-community/HunyuanVideo", device, dtype)
