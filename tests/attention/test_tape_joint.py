"""Maps of joint attention, of text and video together, equal the full softmax of what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack

from customvideo.attention.losses import attention_loss
from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import watch
from customvideo.backbones.base import TextStates
from customvideo.backbones.cogvideox import CogVideoX, load
from customvideo.errors import AttentionError
from tests.tiny_cogvideox import build_tiny_cogvideox, build_tiny_cogvideox_turned

SIZE = (5, 64, 96)
TIMES = torch.tensor([300, 700])


@pytest.fixture(
    scope="module", params=[build_tiny_cogvideox, build_tiny_cogvideox_turned], ids=["2b", "5b"]
)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CogVideoX:
    return load(request.param(tmp_path_factory.mktemp("cogvideox")), device="cpu")


@pytest.fixture
def latents(backbone: CogVideoX) -> Tensor:
    shape = (2, *backbone.latent_shape(*SIZE))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def leaf(backbone: CogVideoX) -> TextStates:
    """Two prompts whose states ask for a gradient."""
    text = backbone.encode_prompt(["a cat", "a dog on the beach"])
    return TextStates(text.states.detach().requires_grad_(), text.ids)


@pytest.fixture
def words(backbone: CogVideoX) -> Tensor:
    """(row, word, token): one token, two tokens, a word that only one row has."""
    found = torch.zeros(2, 3, backbone.tables()[0].max_length)
    found[:, 0, 1] = 1
    found[:, 1, 3:5] = 0.5
    found[1, 2, 2] = 1
    return found


@pytest.fixture
def checkpointed(backbone: CogVideoX) -> Iterator[None]:
    backbone.checkpointed = True
    yield
    backbone.checkpointed = False


def hooks_on(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def heads(attention: Any, part: str, states: Tensor) -> Tensor:
    """(row, head, position, channel), normalised as the model does."""
    projected: Tensor = getattr(attention, f"to_{part}")(states)
    split = projected.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
    norm = getattr(attention, f"norm_{part}")
    return F.layer_norm(split, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def turned(states: Tensor, turns: tuple[Tensor, Tensor], first: int) -> Tensor:
    """Positions from `first` on, as complex pairs of channels, times e^(i angle)."""
    cosines, sines = (part[:, ::2] for part in turns)
    pairs = torch.view_as_complex(states[:, :, first:].unflatten(-1, (-1, 2)).contiguous())
    moved = torch.view_as_real(pairs * torch.complex(cosines, sines)).flatten(-2)
    return torch.cat([states[:, :, :first], moved], dim=2)


def full_softmax(attention: Any, site: AttentionSite, words: Tensor, seen: Any) -> Tensor:
    """(row, word, frame, height, width) from what the attention was given, written out."""
    states = torch.cat([seen["encoder_hidden_states"], seen["hidden_states"]], dim=1)
    tokens = words.shape[-1]
    q, k = (heads(attention, part, states) for part in "qk")
    if seen["image_rotary_emb"] is not None:
        q, k = (turned(part, seen["image_rotary_emb"], tokens) for part in (q, k))
    scores = torch.einsum("rhqc,rhkc->rhqk", q, k) / q.shape[-1] ** 0.5
    video = scores.softmax(dim=-1).mean(dim=1)[:, tokens:, :tokens]
    return torch.einsum("rvt,rwt->rwv", video, words).unflatten(-1, site.grid)


def expected_maps(
    backbone: CogVideoX, latents: Tensor, text: TextStates, words: Tensor
) -> dict[str, Tensor]:
    """Those of one more forward, at every site."""
    found: dict[str, Tensor] = {}
    handles = []
    for site in backbone.sites(*SIZE):
        attention: Any = backbone.layer(site.path)

        def listen(
            module: nn.Module, _args: object, kwargs: Any, site: AttentionSite = site
        ) -> None:
            found[site.path] = full_softmax(module, site, words, kwargs)

        handles.append(attention.register_forward_pre_hook(listen, with_kwargs=True))
    backbone.predict(latents, TIMES, text)
    for handle in handles:
        handle.remove()
    return found


def test_maps_equal_the_full_softmax(
    backbone: CogVideoX, latents: Tensor, leaf: TextStates, words: Tensor
) -> None:
    sites = backbone.sites(*SIZE)
    expected = expected_maps(backbone, latents, leaf, words)
    with watch(backbone.denoiser, sites, words) as tape:
        backbone.predict(latents, TIMES, leaf)
    maps = tape.maps()
    assert list(maps) == [site.path for site in sites] and len(maps) == 3
    for site in sites:
        assert maps[site.path].shape == (2, 3, 2, 4, 6) == (2, 3, *site.grid)
        torch.testing.assert_close(maps[site.path], expected[site.path], rtol=0, atol=1e-7)
        # Maps that are all alike would prove nothing.
        shown = expected[site.path][:, :2]
        assert shown.std() > 0.1 * shown.mean() > 1e-4
        assert not maps[site.path][0, 2].any()


@pytest.mark.parametrize("recomputed", [False, True])
def test_gradient_is_that_of_the_full_softmax(
    backbone: CogVideoX,
    latents: Tensor,
    leaf: TextStates,
    words: Tensor,
    recomputed: bool,
) -> None:
    sites = backbone.sites(*SIZE)
    weights = torch.randn(3, 2, 3, 2, 4, 6, generator=torch.Generator().manual_seed(1))

    def gradient(maps: dict[str, Tensor]) -> Tensor:
        total = sum(
            (weight * one).sum() for weight, one in zip(weights, maps.values(), strict=True)
        )
        (found,) = torch.autograd.grad(total, leaf.states)  # type: ignore[arg-type]
        return found

    expected = gradient(expected_maps(backbone, latents, leaf, words))
    backbone.checkpointed = recomputed
    with watch(backbone.denoiser, sites, words) as tape:
        backbone.predict(latents, TIMES, leaf)
        found = gradient(tape.maps(require_grad=True))
    backbone.checkpointed = False
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("checkpointed")
@pytest.mark.parametrize("read_before", [True, False])
def test_recomputing_in_backward_leaves_the_tape_alone(
    backbone: CogVideoX, latents: Tensor, leaf: TextStates, words: Tensor, read_before: bool
) -> None:
    sites = backbone.sites(*SIZE)
    runs: list[int] = []
    handle = backbone.layer(sites[0].path).register_forward_pre_hook(lambda *_: runs.append(1))
    with watch(backbone.denoiser, sites, words) as tape:
        prediction = backbone.predict(latents, TIMES, leaf)
        before = tape.maps() if read_before else None
        total = prediction.square().mean()
        if before is not None:
            masks = torch.zeros(2, 3, 8, 12)
            masks[..., :6] = 1
            total = total + attention_loss(before, masks, words.sum(-1) > 0)
        total.backward()
        assert len(runs) == 2, "the backward pass ran the attention again"
        after = tape.maps()
    handle.remove()
    assert leaf.states.grad is not None and leaf.states.grad.any()
    expected = expected_maps(backbone, latents, leaf, words)
    for site in sites:
        assert before is None or after[site.path] is before[site.path]
        torch.testing.assert_close(after[site.path], expected[site.path], rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_output_is_bit_identical(
    backbone: CogVideoX, latents: Tensor, leaf: TextStates, words: Tensor
) -> None:
    before = backbone.predict(latents, TIMES, leaf)
    with watch(backbone.denoiser, backbone.sites(*SIZE), words) as tape:
        during = backbone.predict(latents, TIMES, leaf)
        tape.maps()
    assert torch.equal(before, during)
    assert torch.equal(before, backbone.predict(latents, TIMES, leaf))
    assert hooks_on(backbone.denoiser) == 0 and not _get_current_function_mode_stack()


@torch.no_grad()
@pytest.mark.parametrize("place", ["to_q", "to_out.0"], ids=["before the kernel", "after it"])
def test_nothing_stays_after_an_exception(
    backbone: CogVideoX, latents: Tensor, leaf: TextStates, words: Tensor, place: str
) -> None:
    sites = backbone.sites(*SIZE)
    processors = list(backbone.denoiser.attn_processors.values())  # type: ignore[operator, union-attr]

    def fail(*_: object) -> None:
        assert _get_current_function_mode_stack(), "the kernel is listened at meanwhile"
        raise RuntimeError("in the middle")

    handle = backbone.layer(f"{sites[1].path}.{place}").register_forward_pre_hook(fail)
    with watch(backbone.denoiser, sites, words) as tape:
        with pytest.raises(RuntimeError, match="in the middle"):
            backbone.predict(latents, TIMES, leaf)
        assert not _get_current_function_mode_stack()
        handle.remove()
        tape.clear()
        backbone.predict(latents, TIMES, leaf)
    assert hooks_on(backbone.denoiser) == 0 and not _get_current_function_mode_stack()
    assert len(tape.maps()) == 3
    found = list(backbone.denoiser.attn_processors.values())  # type: ignore[operator, union-attr]
    assert all(one is other for one, other in zip(processors, found, strict=True))


@torch.no_grad()
def test_sites_of_another_size_and_second_runs_are_refused(
    backbone: CogVideoX, latents: Tensor, leaf: TextStates, words: Tensor
) -> None:
    with watch(backbone.denoiser, backbone.sites(1, 64, 96), words) as tape:
        backbone.predict(latents, TIMES, leaf)
    with pytest.raises(AttentionError, match="1 frames of 4x6 positions"):
        tape.maps()
    with (
        watch(backbone.denoiser, backbone.sites(*SIZE), words),
        pytest.raises(AttentionError, match="ran twice"),
    ):
        backbone.predict(latents, TIMES, leaf)
        backbone.predict(latents, TIMES, leaf)


class Joint(nn.Module):
    """One attention with two heads over text and video, with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.to_k = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        q, k = (
            part(states).unflatten(-1, (2, 4)).transpose(1, 2) for part in (self.to_q, self.to_k)
        )
        return F.scaled_dot_product_attention(q, k, k, attn_mask=mask)


@pytest.mark.parametrize("text_first", [True, False])
@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("shape", [(2, 1, 1, 9), (2, 1, 9, 9), (2, 2, 9, 9), (1, 9, 9)])
@torch.no_grad()
def test_maps_know_of_masks_and_of_text_that_comes_last(
    text_first: bool, kind: str, shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(3)
    module = nn.ModuleDict({"joint": Joint()})
    states = torch.randn(2, 9, 8, generator=generator)
    allowed = torch.rand(shape, generator=generator) < 0.7
    # No position may be left with nothing to read.
    allowed[..., 4] = True
    mask = allowed if kind == "bool" else torch.zeros(shape).masked_fill(~allowed, -50.0)
    site = AttentionSite(
        "joint", "joint", (1, 2, 3), 2, "joint.to_k", "joint.to_k", text_first=text_first
    )
    words = torch.rand(2, 2, 3, generator=generator)
    with watch(module, [site], words) as tape:
        module["joint"](states, mask)
    found = tape.maps()["joint"]

    attention: Any = module["joint"]
    q, k = (
        part(states).unflatten(-1, (2, 4)).transpose(1, 2)
        for part in (attention.to_q, attention.to_k)
    )
    scores = q @ k.transpose(-1, -2) / 2
    hidden = (~allowed if len(shape) == 4 else ~allowed[None]).expand_as(scores)
    share = scores.masked_fill(hidden, -50.0 if kind == "added" else -torch.inf)
    if kind == "added":
        share = scores + torch.zeros_like(scores).masked_fill(hidden, -50.0)
    probabilities = share.softmax(-1).mean(dim=1)
    text, video = (slice(3), slice(3, 9)) if text_first else (slice(6, 9), slice(6))
    expected = (probabilities[:, video, text] @ words.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(found, expected.reshape(2, 2, 1, 2, 3), rtol=0, atol=1e-6)
