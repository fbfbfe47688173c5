"""Compiled parts of the frozen network: which they are, that training is the same, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from customvideo.backbones.base import Backbone, load_backbone
from customvideo.errors import ConfigError
from customvideo.training import compiling
from customvideo.training.compiling import compiled, untouched
from customvideo.training.trainer import Trainer
from tests.cast import make_cast, quick_method, short_run
from tests.tiny_wan import build_tiny_wan

Graphs = list[torch.fx.GraphModule]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    """What is compiled, by a compiler that only notes it: no other is so quick."""
    seen: Graphs = []

    def note(graph: torch.fx.GraphModule, _inputs: Any) -> Callable[..., Any]:
        seen.append(graph)
        return graph.forward

    monkeypatch.setattr(compiling, "_BACKEND", note)
    torch._dynamo.reset()
    return seen


def in_use(backbone: Backbone) -> int:
    return sum(one._compiled_call_impl is not None for one in backbone.denoiser.modules())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_training_is_the_same(graphs: Graphs, tmp_path: Path) -> None:
    backbone = load_backbone(build_tiny_wan(tmp_path / "tiny"), device="cpu")
    method, counts = quick_method(attention_weight=0.2), list[int]()
    plain, fast = (
        Trainer(
            short_run(steps=2, compile=wanted, gradient_checkpointing=True, least_cells=0),
            on_step=lambda _: counts.append(in_use(backbone)),
            console=Console(quiet=True),
        ).fit(backbone, method, make_cast())
        for wanted in (False, True)
    )
    # Three blocks of self-attention and feed-forward; all blocks share what was compiled for one.
    assert counts == [0, 0, 6, 6] and in_use(backbone) == 0
    assert 2 <= len(graphs) <= 6
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_what_carries_hooks_is_left_out(tiny_zeroscope: Path) -> None:
    denoiser = load_backbone(tiny_zeroscope, device="cpu").denoiser
    names = {module: name for name, module in denoiser.named_modules()}
    parts = [names[part] for part in untouched(denoiser, [])]
    inside = list(denoiser.get_submodule(parts[0]).named_modules())[-1][0]
    left = [names[part] for part in untouched(denoiser, [f"{parts[0]}.{inside}", parts[-1]])]
    assert parts[0] not in left and parts[-1] not in left
    assert set(parts[1:-1]) <= set(left)
    # No part within another.
    assert not [one for one in parts if any(other.startswith(f"{one}.") for other in parts)]


def test_refusals(tiny_zeroscope: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(tiny_zeroscope, device="cpu")
    with (
        pytest.raises(ConfigError, match=r"changes every block .* set compile=false"),
        compiled(backbone, backbone.layers("denoiser"), True),
    ):
        pass
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ConfigError, match=r"C\+\+ compiler"), compiled(backbone, [], True):
        pass
    assert in_use(backbone) == 0
