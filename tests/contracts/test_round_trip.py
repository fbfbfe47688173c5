"""What a short training owes, on every row of the BACKBONES table: it moves all that it is to move
and nothing else, and what is saved of it makes the same videos in another process.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import Backbone
from customvideo.generation import SamplingConfig, generate
from customvideo.training.trainer import Trainer
from tests.cast import CANVAS, make_cast, quick_method, short_run

PROMPT = "a <tom> cat and a <rex> dog"
VIDEO = SamplingConfig(num_steps=2, guidance=2.0, frames=5, height=64, width=96, solver="native")


def weights(backbone: Backbone) -> dict[str, Tensor]:
    """Copies of the denoiser's, the text encoders' and the tables' weights."""
    parts = {"denoiser": backbone.denoiser}
    parts |= {path: backbone.layer(path) for path in backbone.layers("encoder")}
    parts |= {f"table {i}": table.embedding for i, table in enumerate(backbone.tables())}
    return {
        f"{part} {name}": value.clone()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


@torch.no_grad()
def predicted(backbone: Backbone, adapter: Adapter | None) -> Tensor:
    """What is made of a lone picture of noise and a prompt without learned words."""
    noise = torch.ones(1, *backbone.latent_shape(1, *CANVAS))
    with adapter.attach(backbone) if adapter else nullcontext():
        return backbone.predict(noise, torch.tensor([500]), backbone.encode_prompt(["a cat"]))


def test_trained_saved_and_loaded_it_draws_the_same(
    backbone: Backbone, loads: Callable[[], Backbone], tmp_path: Path
) -> None:
    cast, method, before = make_cast(), quick_method(attention_weight=0.2), weights(backbone)
    # Two steps reach both of two networks that take turns.
    config = short_run(
        steps=2, batch_size=1, pool=2, least_cells=0, learning_rate=2e-2, word_learning_rate=2e-1
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        start = {
            name: value.clone()
            for name, value in method.trainable(backbone, cast).state_dict().items()
        }
    adapter = Trainer(config, console=Console(quiet=True)).fit(backbone, method, cast)

    assert not [name for name, now in adapter.state_dict().items() if torch.equal(now, start[name])]
    after = weights(backbone)
    assert after.keys() == before.keys()
    assert not [name for name, now in after.items() if not torch.equal(now, before[name])]

    adapter.save(tmp_path / "pair.safetensors")
    loaded, fresh = Adapter.load(tmp_path / "pair.safetensors"), loads()
    assert fresh is not backbone
    trained = generate(backbone, adapter, PROMPT, seed=3, options=VIDEO)
    again = generate(fresh, loaded, PROMPT, seed=3, options=VIDEO)
    assert np.array_equal(again.frames, trained.frames)
    assert not torch.equal(predicted(fresh, loaded), predicted(fresh, None))
