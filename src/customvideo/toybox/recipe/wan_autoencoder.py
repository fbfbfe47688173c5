"""The Wan edition's autoencoder: its encoder is the best linear code of 8x8 patches, for good.

Only the decoder learns, so whatever learns on latents need not wait for it, and an hour goes into
the denoiser. Two frames that share a latent are coded as their mean, and drawn twice at first. How
the code is put into the weights is what differs from `autoencoder.py`: this class normalises by
length alone and takes pixels in squares.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, patchify
from torch import Tensor, nn

from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.dataset import Shelf
from customvideo.toybox.recipe.draw import Draw, unit
from customvideo.toybox.wan_models import LATENT_CHANNELS, PATCH, WIDTH

__all__ = ["WanAutoencoderStage", "by_pictures", "encode_clips", "start_from_patches"]

_CROP = (32, 48)
_WHOLE_FROM = 0.8
_CLIP_SHARE = 0.35
_HAZE = 0.05
"""Noise on the latents that the decoder sees, in their deviations; a denoiser's are never exact."""
_ANCHOR = 30.0


def by_pictures(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """Let its convolutions over time run as convolutions of pictures whose channels are the frames'
    side by side: the same result, several times as fast on a CPU."""
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d) and module.stride[0] == 1:
            module.forward = _flat(module)
    return vae


def _flat(conv: WanCausalConv3d) -> Callable[..., Tensor]:
    across, down, before = conv._padding[0], conv._padding[2], conv._padding[4]
    taps = before + 1

    def forward(x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        rows, _, frames = x.shape[:3]
        weight = conv.weight
        if taps == 1 or (frames == 1 and cache_x is None):
            # Frames before the first are zero.
            stacked, weight = x.transpose(1, 2).flatten(0, 1), weight[:, :, -1]
        else:
            known = x if cache_x is None else torch.cat([cache_x, x], dim=2)
            known = F.pad(known, (0, 0, 0, 0, frames + before - known.shape[2], 0))
            # (row, channel, frame, height, width, tap) -> (row * frame, channel * tap, …)
            windows = known.unfold(2, taps, 1).permute(0, 2, 1, 5, 3, 4)
            stacked, weight = windows.flatten(0, 1).flatten(1, 2), weight.flatten(1, 2)
        found = F.conv2d(stacked, weight, conv.bias, padding=(down, across))
        return found.reshape(rows, frames, *found.shape[1:]).transpose(1, 2)

    return forward


@torch.no_grad()
def start_from_patches(vae: AutoencoderKLWan, frames: Tensor) -> None:
    """Set the encoder's weights so that it computes the linear code of `frames` uint8 (N, height,
    width, 3), to a few parts in a hundred.

    Residual branches start at zero. Four pixels by four come in (48 channels), the strided
    convolution projects 2x2 of these on the main directions, the code's as pairs (x, -x):
    silu(x) - silu(-x) = x. One constant channel, far louder than the code, keeps the last norm from
    rescaling it.
    """
    encoder, decoder = vae.encoder, vae.decoder
    for part in (encoder.mid_block, decoder.mid_block):
        for resnet in part.resnets:
            _clear(resnet.conv2)
        for attention in part.attentions:
            _clear(attention.proj)
    _clear(encoder.conv_in)
    for channel in range(WIDTH):
        encoder.conv_in.weight[channel, channel, -1, 1, 1] = 1.0
    (halving,) = encoder.down_blocks
    patches = patchify(unit(frames)[:, :, None], PATCH)[:, :, 0]
    _project(halving.resample[1], F.unfold(patches, 2, stride=2))
    _share_time(halving.time_conv)
    encoder.norm_out.gamma.fill_(_ANCHOR / WIDTH**0.5)
    _read_pairs(encoder.conv_out)
    for layer in (vae.quant_conv, vae.post_quant_conv):
        _clear(layer)
        for channel in range(len(layer.weight)):
            layer.weight[channel, channel] = 1.0
    _repeat_time(decoder.up_blocks[0].upsamplers[0].time_conv)


def _clear(layer: nn.Module) -> None:
    layer.weight.zero_()  # type: ignore[operator]
    layer.bias.zero_()  # type: ignore[operator]


def _project(layer: nn.Conv2d, patches: Tensor) -> None:
    """The main directions of `patches` (N, 4 * WIDTH, place): the code's channels twice, with both
    signs, further ones once, and a constant."""
    cells = patches.movedim(1, 2).flatten(0, 1)
    mean = cells.mean(0)
    _, values, vectors = torch.linalg.svd(cells - mean, full_matrices=False)
    deviation = values / len(cells) ** 0.5
    basis = vectors / deviation.sqrt()[:, None]
    basis = basis / (cells - mean).matmul(basis[:LATENT_CHANNELS].T).std()
    code, rest = basis[:LATENT_CHANNELS], basis[LATENT_CHANNELS : WIDTH - 1 - LATENT_CHANNELS]
    rows = torch.cat([code, -code, rest, torch.zeros_like(code[:1])])
    _clear(layer)
    layer.weight[:, :, :2, :2] = rows.view(WIDTH, WIDTH, 2, 2)
    assert layer.bias is not None
    layer.bias.copy_(-rows @ mean)
    layer.bias[-1] = _ANCHOR


def _share_time(layer: nn.Module) -> None:
    """Two frames become their mean."""
    _clear(layer)
    for channel in range(WIDTH):
        layer.weight[channel, channel, 1:] = 0.5  # type: ignore[operator]


def _repeat_time(layer: nn.Module) -> None:
    """A frame becomes two of it."""
    _clear(layer)
    for channel in range(len(layer.weight)):  # type: ignore[arg-type]
        layer.weight[channel, channel % WIDTH, -1] = 1.0  # type: ignore[operator]


def _read_pairs(layer: nn.Module) -> None:
    """Latents from their two channels; their uncertainties are next to nothing."""
    _clear(layer)
    layer.bias[LATENT_CHANNELS:] = -8.0  # type: ignore[operator]
    for channel in range(LATENT_CHANNELS):
        layer.weight[channel, channel, -1, 1, 1] = 1.0  # type: ignore[operator]
        layer.weight[channel, LATENT_CHANNELS + channel, -1, 1, 1] = -1.0  # type: ignore[operator]


@torch.no_grad()
def encode_clips(vae: AutoencoderKLWan, frames: Tensor) -> Tensor:
    """uint8 (N, frame, height, width, 3) to the latents' means (N, channel, latent frame, h, w)."""
    device = next(vae.parameters()).device
    return torch.cat(
        [
            vae.encode(unit(part.to(device)).transpose(1, 2)).latent_dist.mean.cpu()
            for part in torch.split(frames, max(1, 64 // frames.shape[1]))
        ]
    )


class WanAutoencoderStage:
    """The decoder learns to draw pictures and clips from their codes; what lies inside the subjects
    counts thrice."""

    def __init__(
        self, vae: AutoencoderKLWan, shelves: dict[str, Shelf], seed: int, steps: int, batch: int
    ) -> None:
        self.shelves, self.seed, self.steps, self.batch = shelves, seed, steps, batch
        self.device = next(vae.parameters()).device
        start_from_patches(vae, shelves["pictures"].frames[::7, 0][:700].to(self.device))
        self.vae = by_pictures(vae)

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 11, step)
        moving = draw.chance(1, _CLIP_SHARE)[0]
        clips, inside = self._batch(draw, moving=moving, whole=step > _WHOLE_FROM * self.steps)
        with torch.no_grad():
            latents = self.vae.encode(clips).latent_dist.mean
        haze = _HAZE * latents.std() * draw.normal(latents)
        error = self.vae.decode(latents + haze).sample - clips
        weighted = (error.square() + 0.02 * error.abs()) * (1 + 2 * inside)
        return {"clips" if moving else "pictures": weighted.mean()}

    def _batch(self, draw: Draw, *, moving: bool, whole: bool) -> tuple[Tensor, Tensor]:
        """Clips (row, 3, frame, height, width), and where subjects are (row, 1, frame, …)."""
        shelf = self.shelves["clips" if moving else "pictures"]
        count = self.batch * (4 if moving else 20)
        chosen = draw.indices(len(shelf.worlds), max(1, count // 4 if whole else count))
        frames, labels = shelf.frames[chosen], shelf.labels[chosen]
        if not whole:
            top = 8 * int(draw.numpy.integers((frames.shape[2] - _CROP[0]) // 8 + 1))
            left = 8 * int(draw.numpy.integers((frames.shape[3] - _CROP[1]) // 8 + 1))
            rows, columns = slice(top, top + _CROP[0]), slice(left, left + _CROP[1])
            frames, labels = (part[:, :, rows, columns] for part in (frames, labels))
        clips = unit(frames.to(self.device)).transpose(1, 2)
        inside = (labels > 0).float()[:, None].to(self.device)
        if draw.chance(1, 0.5)[0]:
            clips, inside = clips.flip(-1), inside.flip(-1)
        return clips, inside
