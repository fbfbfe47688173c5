"""Recorded maps equal the full softmax, and recording leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from customvideo.attention.losses import attention_loss
from customvideo.attention.site import AttentionSite
from customvideo.attention.tape import watch
from customvideo.errors import AttentionError
from tests.attention.conftest import Scene


def hooks_on(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def full_softmax(scene: Scene, site: AttentionSite) -> Tensor:
    """The map as diffusers' own unfused score computation gives it."""
    attention = scene.denoiser.get_submodule(site.path)
    seen: dict[str, Tensor] = {}

    def listen(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen.update(video=args[0], text=kwargs["encoder_hidden_states"])

    handle = attention.register_forward_pre_hook(listen, with_kwargs=True)
    scene.run()
    handle.remove()
    q = attention.head_to_batch_dim(attention.to_q(seen["video"]))
    k = attention.head_to_batch_dim(attention.to_k(seen["text"]))
    scores = attention.get_attention_scores(q, k)
    frames, height, width = site.grid
    probabilities = scores.reshape(2, frames, site.heads, height, width, -1).mean(dim=2)
    return torch.einsum("rfhwt,rnt->rnfhw", probabilities, scene.words)


@pytest.mark.parametrize("frames", [1, 3])
def test_maps_equal_the_full_softmax(denoiser: nn.Module, frames: int) -> None:
    scene = Scene(denoiser, frames)
    with watch(denoiser, scene.sites, scene.words) as tape:
        scene.run()
    maps = tape.maps()
    assert list(maps) == [site.path for site in scene.sites]
    for site in scene.sites:
        expected = full_softmax(scene, site)
        assert maps[site.path].shape == (2, 2, *site.grid)
        torch.testing.assert_close(maps[site.path], expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.01  # maps that are all alike would prove nothing
        assert not maps[site.path][0, 1].any()


@pytest.mark.parametrize("mentioned", [[], [1], [0, 1]])
def test_rows_without_words_have_zero_maps(scene: Scene, mentioned: list[int]) -> None:
    words = torch.zeros_like(scene.words)
    words[mentioned] = scene.words[mentioned]
    weight: Any = scene.denoiser.get_submodule(scene.sites[0].key).weight
    weight.requires_grad_(True)
    with watch(scene.denoiser, scene.sites, words) as tape:
        scene.run()
        found = tape.maps(require_grad=True)[scene.sites[0].path]
    weight.requires_grad_(False)
    expected = torch.zeros_like(found)
    expected[mentioned] = full_softmax(scene, scene.sites[0])[mentioned]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_fused_output_is_bit_identical(scene: Scene) -> None:
    before = scene.run()
    with watch(scene.denoiser, scene.sites, scene.words) as tape:
        during = scene.run()
        tape.maps()
    assert torch.equal(before, during)
    assert torch.equal(before, scene.run())


class Own:
    """A processor that nobody but this test knows."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, attn: Any, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.inner(attn, *args, **kwargs)
        return output


@pytest.mark.parametrize("fail", [False, True])
def test_the_very_processors_found_are_there_afterwards(scene: Scene, fail: bool) -> None:
    attention: Any = scene.denoiser.get_submodule(scene.sites[0].path)
    stock = attention.processor
    attention.processor = Own(stock)
    found = {n: m.processor for n, m in scene.denoiser.named_modules() if hasattr(m, "processor")}
    try:
        with watch(scene.denoiser, scene.sites, scene.words) as tape:
            scene.run()
            inside = dict(scene.denoiser.named_modules())
            assert all(inside[name].processor is own for name, own in found.items())
            if fail:
                raise RuntimeError("in the middle")
    except RuntimeError:
        assert fail
    after = dict(scene.denoiser.named_modules())
    assert all(after[name].processor is own for name, own in found.items())
    assert hooks_on(scene.denoiser) == 0
    assert len(tape.maps()) == 3
    attention.processor = stock


def gradient(scene: Scene, run: Callable[[], Tensor], site: AttentionSite) -> Tensor:
    """Of an attention loss plus a prediction loss, at one site's key weight."""
    weight: Any = scene.denoiser.get_submodule(site.key).weight
    weight.requires_grad_(True)
    masks = torch.zeros(2, 2, 8, 12)
    masks[..., :6] = 1
    with watch(scene.denoiser, [site], scene.words) as tape:
        predicted = run()
        maps = tape.maps(require_grad=True)
        first = maps[site.path]
        total = predicted.square().mean() + attention_loss(maps, masks, scene.words.sum(-1) > 0)
        (found,) = torch.autograd.grad(total, weight)
        assert tape.maps()[site.path] is first
    weight.requires_grad_(False)
    return found


def test_the_attention_loss_reaches_the_keys(scene: Scene) -> None:
    assert gradient(scene, lambda: scene.run().detach(), scene.sites[0]).abs().sum() > 0


class Checkpointed(nn.Module):
    """One attention layer, run again in backward by torch.utils.checkpoint."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.runs = 0
        self.attn = Attention(16, cross_attention_dim=16, heads=2, dim_head=8)

    def forward(self, video: Tensor, text: Tensor) -> Tensor:
        if self.how == "plain":
            return self.block(video, text)
        result: Tensor = checkpoint(self.block, video, text, use_reentrant=self.how == "reentrant")
        return result

    def block(self, video: Tensor, text: Tensor) -> Tensor:
        self.runs += 1
        attended: Tensor = self.attn(video, encoder_hidden_states=text)
        return video + attended


SITE = AttentionSite("attn", "cross", (2, 2, 3), 2, "attn.to_k", "attn.to_v")


def checkpointed(how: str) -> tuple[Checkpointed, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Checkpointed(how)
    words = torch.zeros(1, 1, 5)
    words[0, 0, 3] = 1
    return model, torch.randn(2, 6, 16, requires_grad=True), torch.randn(2, 5, 16), words


@pytest.mark.parametrize("left_early", [False, True])
def test_checkpointing_gives_the_same_gradient_and_one_map(left_early: bool) -> None:
    gradients, maps = {}, {}
    for how in ("plain", "non-reentrant"):
        model, video, text, words = checkpointed(how)
        with watch(model, [SITE], words) as tape:
            output = model(video, text)
            maps[how] = tape.maps(require_grad=True)["attn"]
            total = output.square().mean() + 5 * (maps[how] - 1).square().mean()
            if not left_early:
                total.backward()
        if left_early:
            total.backward()
        assert model.runs == (1 if how == "plain" else 2)
        assert tape.maps()["attn"] is maps[how]
        gradients[how] = [parameter.grad for parameter in model.parameters()]
    assert torch.equal(maps["plain"], maps["non-reentrant"])
    for plain, again in zip(gradients["plain"], gradients["non-reentrant"], strict=True):
        assert plain is not None and again is not None
        torch.testing.assert_close(plain, again, rtol=1e-6, atol=1e-8)


def test_a_forward_repeated_in_backward_is_not_recorded() -> None:
    model, video, text, words = checkpointed("non-reentrant")
    with watch(model, [SITE], words) as tape:
        model(video, text).sum().backward()
        assert model.runs == 2
        assert tape.maps(require_grad=True)["attn"].shape == (1, 1, 2, 2, 3)


def test_maps_without_gradient_are_refused() -> None:
    model, video, text, words = checkpointed("reentrant")
    with watch(model, [SITE], words) as tape:
        model(video, text)
        assert tape.maps()["attn"].shape == (1, 1, 2, 2, 3)
        with pytest.raises(AttentionError, match=r"map of 'attn' carries no gradient"):
            tape.maps(require_grad=True)


def test_no_grad_maps_are_refused_only_when_a_gradient_is_asked_for(scene: Scene) -> None:
    with torch.no_grad(), watch(scene.denoiser, scene.sites, scene.words) as tape:
        scene.run()
        assert len(tape.maps()) == 3
        with pytest.raises(AttentionError, match=r"use_reentrant=False"):
            tape.maps(require_grad=True)


def test_only_the_first_unpaused_forward_before_a_read_counts(scene: Scene) -> None:
    path = scene.sites[0].path
    with watch(scene.denoiser, scene.sites, scene.words) as tape:
        with tape.paused():
            scene.denoiser(torch.zeros(5, 4, 1, 8, 12), 1, torch.zeros(5, 3, 16))
        scene.run()
        first = tape.maps()[path]
        scene.denoiser(torch.zeros(2, 4, 1, 8, 12), 1, torch.zeros(2, 7, 16))
        assert tape.maps()[path] is first
        tape.clear()
        scene.denoiser(torch.zeros(2, 4, 1, 8, 12), 1, torch.zeros(2, 7, 16))
        assert not torch.equal(tape.maps()[path], first)


def test_a_second_forward_before_a_read_is_refused(scene: Scene) -> None:
    with (
        watch(scene.denoiser, scene.sites, scene.words),
        pytest.raises(AttentionError, match="ran twice before its attention map was read"),
    ):
        scene.run()
        scene.run()
    assert hooks_on(scene.denoiser) == 0


def test_sites_that_record_nothing_are_named() -> None:
    model, video, text, words = checkpointed("plain")
    with watch(model, [SITE], words) as tape:
        pass
    with pytest.raises(AttentionError, match="site 'attn' recorded nothing"):
        tape.maps()
    model.attn.fuse_projections()
    from diffusers.models.attention_processor import FusedAttnProcessor2_0

    model.attn.set_processor(FusedAttnProcessor2_0())
    with watch(model, [SITE], words) as tape:
        model(video, text)
    with pytest.raises(AttentionError, match="site 'attn' recorded nothing"):
        tape.maps()


def test_sites_that_are_none_are_refused_at_once(scene: Scene) -> None:
    site = scene.sites[0]
    for wrong, message in (
        (replace(site, path="down_blocks.9.attn2"), "no attention module 'down_blocks.9.attn2'"),
        (replace(site, path="conv_in"), "no attention module 'conv_in'"),
    ):
        with (
            pytest.raises(AttentionError, match=message),
            watch(scene.denoiser, [site, wrong], scene.words),
        ):
            pass
        assert hooks_on(scene.denoiser) == 0


def test_a_grid_that_does_not_fit_is_refused(scene: Scene) -> None:
    wrong = replace(scene.sites[0], grid=(1, 4, 12))
    with watch(scene.denoiser, [wrong], scene.words) as tape:
        scene.run()
    with pytest.raises(AttentionError, match="do not fit 2 rows of 1 frames, 4x12 positions"):
        tape.maps()


def test_an_attention_mask_is_refused_rather_than_ignored() -> None:
    model, video, text, words = checkpointed("plain")
    with watch(model, [SITE], words) as tape:
        masked = torch.zeros(2, 1, 5)
        with tape.paused():
            model.attn(video, encoder_hidden_states=text, attention_mask=masked)
        with pytest.raises(AttentionError, match="'attn' hides text tokens"):
            model.attn(video, encoder_hidden_states=text, attention_mask=masked)


@pytest.mark.parametrize("norm", [None, "layer_norm", "rms_norm"])
@pytest.mark.parametrize("per_frame", [False, True])
def test_other_layouts_and_normalised_projections(norm: str | None, per_frame: bool) -> None:
    """Frames folded into the positions, as in transformers, and q and k normalised per head."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"attn": Attention(16, 12, heads=2, dim_head=8, qk_norm=norm)})
    attention: Any = model["attn"]
    for projection in (attention.to_q, attention.to_k):
        nn.init.normal_(projection.weight)
    video, text = torch.randn(3, 2 * 6, 16), torch.randn(3, 5, 12)
    words = torch.zeros(3, 1, 5)
    words[:, 0, 2] = 1
    with watch(model, [SITE], words) as tape:
        if per_frame:
            attention(video.reshape(6, 6, 16), text.repeat_interleave(2, dim=0))
        else:
            attention(video, text)
    q, k = (attention.to_q(video), attention.to_k(text))
    q, k = (x.unflatten(-1, (2, 8)).transpose(1, 2) for x in (q, k))
    if norm:
        q, k = attention.norm_q(q), attention.norm_k(k)
    expected = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1).mean(1)[..., 2]
    torch.testing.assert_close(
        tape.maps()["attn"], expected.reshape(3, 1, 2, 2, 3), rtol=0, atol=1e-5
    )


def test_the_softmax_is_float32_under_autocast() -> None:
    model, video, text, words = checkpointed("plain")
    kept: dict[str, Tensor] = {}
    for part in ("q", "k"):
        layer = model.attn.get_submodule(f"to_{part}")
        layer.register_forward_hook(lambda _m, _a, out, part=part: kept.update({part: out}))
    with torch.autocast("cpu", torch.bfloat16), watch(model, [SITE], words) as tape:
        model(video, text)
        found = tape.maps(require_grad=True)["attn"]
    assert kept["q"].dtype == torch.bfloat16 and found.dtype == torch.float32
    q, k = (kept[p].float().unflatten(-1, (2, 8)).transpose(1, 2) for p in ("q", "k"))
    expected = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1).mean(1)[..., 3]
    torch.testing.assert_close(found.flatten(), expected.flatten(), rtol=0, atol=1e-6)
