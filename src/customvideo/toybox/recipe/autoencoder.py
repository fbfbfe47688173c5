"""The autoencoder, started from the best linear code of 8x8 patches and trained from there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from customvideo.toybox.models import LATENT_CHANNELS
from customvideo.toybox.recipe.course import Losses
from customvideo.toybox.recipe.dataset import Shelf
from customvideo.toybox.recipe.draw import Draw, unit

__all__ = ["AutoencoderStage", "PatchCode", "round_trip", "start_from_patches"]

PATCH = 8
_CROP = (32, 48)
_WHOLE_FROM = 0.75
"""Crops first: they cost a quarter. Whole frames last: the norms average over all that is seen."""
_NOISE = 0.03
"""Spread of the noise on the latents the decoder sees; a denoiser's latents are never exact."""
_ANCHOR = 30.0


class PatchCode(nn.Module):
    """Linear PCA code of 8x8 patches of `frames` uint8 (N, height, width, 3).

    Channels are divided by the square root of their deviation (half way to whitening): coarse
    channels stay louder than fine ones, as diffusion likes it.
    """

    def __init__(self, frames: Tensor) -> None:
        super().__init__()
        patches = F.unfold(unit(frames), PATCH, stride=PATCH).movedim(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        _, values, vectors = torch.linalg.svd(patches - mean, full_matrices=False)
        deviation = values[:LATENT_CHANNELS] / len(patches) ** 0.5
        basis = vectors[:LATENT_CHANNELS] / deviation.sqrt()[:, None]
        basis = basis / (patches - mean).matmul(basis.T).std()
        self.register_buffer("weight", basis.view(LATENT_CHANNELS, 3, PATCH, PATCH))
        self.register_buffer("bias", -basis.matmul(mean))

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, height, width) to (N, 16, height/8, width/8)."""
        return F.conv2d(pictures, self.weight, self.bias, stride=PATCH)  # type: ignore[arg-type]


@torch.no_grad()
def start_from_patches(vae: AutoencoderKL, code: PatchCode) -> None:
    """Set the encoder's weights so that it computes `code`, to about one part in a hundred.

    Residual branches start at zero. The first two strided convolutions move 2x2 pixels into
    channels (3 -> 12 -> 48), the third applies the code, each of its channels as a pair (x, -x):
    silu(x) - silu(-x) = x, so the last activation is passed unharmed. The last norm is kept from
    rescaling by constant channels far larger than the code.
    """
    encoder = vae.encoder
    for block in (*encoder.down_blocks, encoder.mid_block):
        for resnet in block.resnets:
            _clear(resnet.conv2)
    carried = 3
    _copy_channels(encoder.conv_in, carried, centre=1)
    for block in encoder.down_blocks[:2]:
        _carry(block, carried)
        _unshuffle(block.downsamplers[0].conv, carried)
        carried *= 4
    _carry(encoder.down_blocks[2], carried)
    pairs = _apply_code(encoder.down_blocks[2].downsamplers[0].conv, code, encoder.conv_norm_out)
    _clear(encoder.conv_out)
    encoder.conv_out.bias[LATENT_CHANNELS:] = -8.0
    for channel, place in enumerate(pairs):
        encoder.conv_out.weight[channel, place, 1, 1] = 1.0
        encoder.conv_out.weight[channel, place + 1, 1, 1] = -1.0
    _clear(vae.quant_conv)
    for channel in range(2 * LATENT_CHANNELS):
        vae.quant_conv.weight[channel, channel] = 1.0


@torch.no_grad()
def round_trip(vae: AutoencoderKL, pictures: Tensor, draw: Draw, haze: float) -> Tensor:
    """`pictures` (N, 3, height, width) encoded and decoded, as generated ones would come out.

    `haze` is the noise on the latents, in their deviations: a denoiser's are never exact.
    """
    latents = vae.encode(pictures).latent_dist.mean
    noisy = latents + haze * latents.std() * draw.normal(latents)
    decoded: Tensor = vae.decode(noisy).sample
    return decoded


def _clear(layer: nn.Conv2d) -> None:
    layer.weight.zero_()
    assert layer.bias is not None
    layer.bias.zero_()


def _copy_channels(layer: nn.Conv2d, count: int, centre: int) -> None:
    """The first `count` output channels become the input channels of the same number."""
    assert layer.bias is not None
    layer.weight[:count] = 0.0
    layer.bias[:count] = 0.0
    for channel in range(count):
        layer.weight[channel, channel, centre, centre] = 1.0


def _carry(block: nn.Module, count: int) -> None:
    for resnet in block.resnets:  # type: ignore[union-attr]
        if resnet.conv_shortcut is not None:
            _copy_channels(resnet.conv_shortcut, count, centre=0)


def _unshuffle(layer: nn.Conv2d, count: int) -> None:
    """Channel (2 * row + column) * count + c of the output is input channel c, that far away."""
    assert layer.bias is not None
    layer.weight[: 4 * count] = 0.0
    layer.bias[: 4 * count] = 0.0
    for row in range(2):
        for column in range(2):
            for channel in range(count):
                layer.weight[(2 * row + column) * count + channel, channel, row, column] = 1.0


def _apply_code(layer: nn.Conv2d, code: PatchCode, norm: nn.GroupNorm) -> list[int]:
    """Channel pairs (x, -x) of the code, two pairs a norm group, constants in between.

    Returns the first channel of each pair.
    """
    # (code, channel, row within the cell: 4s, 2s, 1s, column likewise) -> the unshuffled order.
    bits = code.weight.reshape(LATENT_CHANNELS, 3, *(2,) * 6)  # type: ignore[operator]
    kernels = bits.permute(0, 3, 6, 4, 7, 1, 2, 5).reshape(LATENT_CHANNELS, 48, 2, 2)
    _clear(layer)
    assert layer.bias is not None
    width = norm.num_channels // norm.num_groups
    pairs = [index // 2 * width + index % 2 * 2 for index in range(LATENT_CHANNELS)]
    for index, place in enumerate(pairs):
        for sign, channel in ((1.0, place), (-1.0, place + 1)):
            layer.weight[channel, :48, :2, :2] = sign * kernels[index]
            layer.bias[channel] = sign * code.bias[index]  # type: ignore[index]
    for group in range(norm.num_groups):
        for offset in range(4, width):
            layer.bias[group * width + offset] = _ANCHOR if offset % 2 else -_ANCHOR
    norm.weight.fill_(_ANCHOR * ((width - 4) / width) ** 0.5)
    return pairs


class AutoencoderStage:
    """Reconstruction; what lies inside the subjects counts three times."""

    def __init__(
        self, vae: AutoencoderKL, shelf: Shelf, seed: int, steps: int, batch: int = 1
    ) -> None:
        self.frames, self.labels = shelf.frames.flatten(0, 1), shelf.labels.flatten(0, 1)
        self.device = next(vae.parameters()).device
        start_from_patches(vae, PatchCode(self.frames[::7][:700]).to(self.device))
        self.vae = vae.to(memory_format=torch.channels_last)
        self.seed, self.steps, self.batch = seed, steps, batch

    def __call__(self, step: int) -> Losses:
        draw = Draw(self.seed, 1, step)
        pictures, inside = self._batch(draw, whole=step > _WHOLE_FROM * self.steps)
        latents = self.vae.encode(pictures).latent_dist.mean
        decoded = self.vae.decode(latents + _NOISE * draw.normal(latents)).sample
        error = decoded - pictures
        weighted = (error.square() + 0.02 * error.abs()) * (1 + 2 * inside)
        return {"reconstruction": weighted.mean()}

    def _batch(self, draw: Draw, *, whole: bool) -> tuple[Tensor, Tensor]:
        chosen = draw.indices(len(self.frames), self.batch * (5 if whole else 16))
        frames, labels = self.frames[chosen], self.labels[chosen]
        if not whole:
            top = PATCH * int(draw.numpy.integers((frames.shape[1] - _CROP[0]) // PATCH + 1))
            left = PATCH * int(draw.numpy.integers((frames.shape[2] - _CROP[1]) // PATCH + 1))
            frames = frames[:, top : top + _CROP[0], left : left + _CROP[1]]
            labels = labels[:, top : top + _CROP[0], left : left + _CROP[1]]
        pictures = unit(frames.to(self.device)).contiguous(memory_format=torch.channels_last)
        if draw.chance(1, 0.5)[0]:
            pictures, labels = pictures.flip(-1), labels.flip(-1)
        return pictures, (labels > 0).float()[:, None].to(self.device)
