"""UNet3DConditionModel's forward pass, written out over its own stock submodules.

Numerically the stock forward, with these differences in cost: text is not repeated for every
frame, both halves of classifier-free guidance share all that comes before the first text
attention, activations keep one memory layout throughout, and the temporal modules can be left
out or checkpointed. It is NOT a network: every weight belongs to the stock model, and projections,
attentions, norms and convolutions are called as modules, so hooks on them work.

Axes: x is (row * frame, channel, height, width); states are (row, token, dim).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.resnet import TemporalConvLayer
from torch import Tensor, nn

__all__ = ["FrameFolding", "Passage", "TimeConvolution", "forward", "prepare"]


class FrameFolding(AttnProcessor2_0):  # type: ignore[misc]
    """The stock fused attention, for queries of many frames that read one row of text.

    Queries (row * frame, position, channel) against text (row, token, channel) are seen as
    (row, frame * position, channel). With as many text rows as query rows it is the stock one.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if encoder_hidden_states is None or len(encoder_hidden_states) == len(hidden_states):
            folded = hidden_states
        else:
            folded = hidden_states.reshape(len(encoder_hidden_states), -1, hidden_states.shape[-1])
        output: Tensor = super().__call__(attn, folded, encoder_hidden_states, attention_mask, temb)
        return output.reshape(hidden_states.shape)


class TimeConvolution(nn.Conv3d):
    """A Conv3d whose kernel spans time only, computed in two dimensions: time and position.

    The sum is the same; on a CPU, kernels for two dimensions are twice as fast. Of a lone frame
    only the kernel's middle is multiplied: its neighbours in time are zeros.
    """

    @classmethod
    def of(cls, stock: nn.Conv3d) -> TimeConvolution:
        """The same convolution over the same parameters."""
        assert stock.kernel_size[1:] == (1, 1) and stock.stride == (1, 1, 1) and stock.groups == 1
        same = cls(
            stock.in_channels,
            stock.out_channels,
            stock.kernel_size,  # type: ignore[arg-type]
            padding=stock.padding,  # type: ignore[arg-type]
            device="meta",
        )
        same.weight, same.bias = stock.weight, stock.bias
        return same

    def forward(self, input: Tensor) -> Tensor:
        """(row, channel, frame, height, width) -> the same with other channels."""
        weight, padding = self.weight[..., 0], self.padding[:2]
        if input.shape[2] == 1:
            weight, padding = weight[:, :, weight.shape[2] // 2, None], (0, 0)
        flat = F.conv2d(input.flatten(3), weight, self.bias, padding=padding)
        return flat.reshape(*flat.shape[:3], *input.shape[3:])


def prepare(unet: nn.Module, text_sites: list[str]) -> None:
    """Fit a stock UNet3DConditionModel for `forward`, once; its own forward still works."""
    for path in text_sites:
        unet.get_submodule(path).set_processor(FrameFolding())  # type: ignore[operator]
    for module in unet.modules():
        if isinstance(module, TemporalConvLayer):
            for steps in (module.conv1, module.conv2, module.conv3, module.conv4):
                steps[-1] = TimeConvolution.of(steps[-1])
    for parameter in unet.parameters():
        if parameter.dim() in (4, 5):
            parameter.data = parameter.data.contiguous(memory_format=_LAYOUTS[parameter.dim()])


_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Passage:
    """What stays the same through one forward pass.

    `states` has as many rows as the latents, or twice as many: then the pass begins with the
    latents' rows and doubles at the first text attention, negative half first.
    """

    states: Tensor
    frames: int
    temporal: bool = True
    recompute: Callable[..., Any] | None = None
    """Calls a function so that it is computed again in the backward pass; None stores instead."""

    def widen(self, x: Tensor) -> Tensor:
        """`x` (row * frame, …) repeated to as many rows as `states` has."""
        copies = len(self.states) * self.frames // len(x)
        # A plain repeat would fall back to the default memory layout.
        return x if copies == 1 else torch.cat([x] * copies)

    def residual(self, resnet: nn.Module, x: Tensor, time: Tensor) -> Tensor:
        """A residual block, told the time (row * frame, dim) or (1, dim)."""
        output: Tensor = resnet(x, time if len(time) in (1, len(x)) else self.widen(time))
        return output

    def convolve_time(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A TemporalConvLayer, or nothing if the pass is not temporal."""
        if not self.temporal:
            return x
        output: Tensor = layer(x, num_frames=self.frames)
        return output

    def attend_time(self, transformer: Any, x: Tensor) -> Tensor:
        """A TransformerTemporalModel: each position attends over the frames; or nothing."""
        if not self.temporal:
            return x
        height, width = x.shape[2:]
        # (row, channel, frame, height, width): the norm's groups span the frames.
        normed = transformer.norm(_with_frames(x, self.frames))
        hidden: Tensor = transformer.proj_in(normed.permute(0, 3, 4, 2, 1).flatten(0, 2))
        for block in transformer.transformer_blocks:
            hidden = block(hidden)
        hidden = transformer.proj_out(hidden)
        hidden = hidden.reshape(-1, height, width, *hidden.shape[1:])
        # (row, height, width, frame, channel) -> channels last, as x is.
        frames = hidden.permute(0, 3, 1, 2, 4).flatten(0, 1).permute(0, 3, 1, 2)
        return frames + x

    def read_text(self, transformer: Any, x: Tensor) -> Tensor:
        """A Transformer2DModel: attention within each frame, then to the text."""
        hidden = _enter(transformer, x)
        for block in transformer.transformer_blocks:
            parting = len(hidden) < len(self.states) * self.frames
            hidden = (
                self._part(block, hidden)
                if parting
                else block(hidden, encoder_hidden_states=self.states)
            )
        return _leave(transformer, hidden, self.widen(x))

    def _part(self, block: Any, hidden: Tensor) -> Tensor:
        """A BasicTransformerBlock where the guidance halves part, just before the text."""
        hidden = block.attn1(block.norm1(hidden)) + hidden
        normed = self.widen(block.norm2(hidden))
        hidden = block.attn2(normed, encoder_hidden_states=self.states) + self.widen(hidden)
        parted: Tensor = block.ff(block.norm3(hidden)) + hidden
        return parted

    def layer(self, block: Any, index: int, x: Tensor, time: Tensor) -> Tensor:
        """One layer of a down or up block, recomputed in the backward pass if asked for."""
        if self.recompute is not None and torch.is_grad_enabled():
            output: Tensor = self.recompute(self._layer, block, index, x, time)
            return output
        return self._layer(block, index, x, time)

    def _layer(self, block: Any, index: int, x: Tensor, time: Tensor) -> Tensor:
        x = self.residual(block.resnets[index], x, time)
        x = self.convolve_time(block.temp_convs[index], x)
        if not hasattr(block, "attentions"):
            return x
        x = self.read_text(block.attentions[index], x)
        return self.attend_time(block.temp_attentions[index], x)


def forward(unet: Any, latents: Tensor, times: Tensor, passage: Passage) -> Tensor:
    """Predict from `latents` (row, channel, frame, height, width) at `times` (row,) or (1,).

    Returns (row or 2 * row, channel, frame, height, width), as `passage.states` has rows.
    """
    x = latents.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    time = _embed_times(unet, times, passage.frames)
    x = passage.attend_time(unet.transformer_in, unet.conv_in(x))
    x, skips = _descend(unet, x, time, passage)
    x = _cross_bottom(unet.mid_block, x, time, passage)
    x = _ascend(unet, x, time, skips, passage)
    if unet.conv_norm_out is not None:
        x = unet.conv_act(unet.conv_norm_out(x))
    return _with_frames(unet.conv_out(x), passage.frames)


def _with_frames(x: Tensor, frames: int) -> Tensor:
    """(row * frame, channel, height, width) -> (row, channel, frame, height, width)."""
    return x.reshape(-1, frames, *x.shape[1:]).transpose(1, 2)


def _embed_times(unet: Any, times: Tensor, frames: int) -> Tensor:
    """(row * frame, dim), or (1, dim), which broadcasts, if all rows share one time."""
    embedded: Tensor = unet.time_embedding(unet.time_proj(times).to(unet.dtype))
    return embedded if len(times) == 1 else embedded.repeat_interleave(frames, dim=0)


def _descend(unet: Any, x: Tensor, time: Tensor, passage: Passage) -> tuple[Tensor, list[Tensor]]:
    skips = [x]
    for block in unet.down_blocks:
        for index in range(len(block.resnets)):
            x = passage.layer(block, index, x, time)
            skips.append(x)
        for downsampler in block.downsamplers or ():
            x = downsampler(x)
            skips.append(x)
    return x, skips


def _cross_bottom(block: Any, x: Tensor, time: Tensor, passage: Passage) -> Tensor:
    x = passage.convolve_time(block.temp_convs[0], passage.residual(block.resnets[0], x, time))
    for index, transformer in enumerate(block.attentions):
        x = passage.read_text(transformer, x)
        x = passage.attend_time(block.temp_attentions[index], x)
        x = passage.residual(block.resnets[index + 1], x, time)
        x = passage.convolve_time(block.temp_convs[index + 1], x)
    return x


def _ascend(unet: Any, x: Tensor, time: Tensor, skips: list[Tensor], passage: Passage) -> Tensor:
    for block in unet.up_blocks:
        for index in range(len(block.resnets)):
            skip = passage.widen(skips.pop())
            x = passage.layer(block, index, torch.cat([x, skip], dim=1), time)
        for upsampler in block.upsamplers or ():
            # A side that was odd is met again only by asking for the skip's size.
            x = upsampler(x, skips[-1].shape[2:])
    return x


def _enter(transformer: Any, x: Tensor) -> Tensor:
    """Transformer2DModel's way in: (n, channel, height, width) -> (n, position, channel)."""
    x = transformer.norm(x)
    if transformer.use_linear_projection:
        projected: Tensor = transformer.proj_in(x.flatten(2).transpose(1, 2))
        return projected
    projected = transformer.proj_in(x)
    return projected.flatten(2).transpose(1, 2)


def _leave(transformer: Any, hidden: Tensor, residual: Tensor) -> Tensor:
    """Transformer2DModel's way out, the reverse of `_enter`, plus the residual."""
    size = residual.shape[2:]
    if transformer.use_linear_projection:
        hidden = transformer.proj_out(hidden).transpose(1, 2)
        return hidden.reshape(*hidden.shape[:2], *size) + residual
    hidden = hidden.transpose(1, 2)
    output: Tensor = transformer.proj_out(hidden.reshape(*hidden.shape[:2], *size)) + residual
    return output
