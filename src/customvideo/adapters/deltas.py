"""What is added to one frozen layer: to its output, to its weights, or beside it.

Every delta starts as exactly nothing, so an untrained adapter changes nothing, and is put on and
taken off without touching a weight. Which layers get one is the method's choice, where a path
leads is the backbone's knowledge, and carrying them in a file is `customvideo.adapters.adapter`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from customvideo.adapters.gates import Gate
from customvideo.adapters.sums import Sums
from customvideo.backbones.base import Backbone, JointText
from customvideo.errors import AdapterError

__all__ = [
    "BottleneckDelta",
    "Delta",
    "FullDelta",
    "LinearDelta",
    "LowRankDelta",
    "RoutedDelta",
    "WeightDelta",
    "read_delta",
]

Undo = Callable[[], None]

_PART = ":"
"""Between the number of a part and its parameter's name, in a file."""


class Delta(nn.Module):
    """What is learned of one layer, in float32 whatever the layer's own type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight of the layer it belongs to."""
        raise NotImplementedError

    def named_parts(self) -> dict[str, nn.Parameter]:
        """Its parameters by the names that they have in a file: without dots."""
        return dict(self.named_parameters())

    def attach(
        self, backbone: Backbone, path: str, strength: float, gate: Gate | None = None
    ) -> Undo:
        """Let it count, `strength` times, at the layer at `path`; the result takes it off.

        With a `gate` it counts there alone where the gate is open; only deltas of keys and values
        take one.
        """
        raise NotImplementedError

    def shape_in(self, backbone: Backbone, path: str) -> tuple[int, ...]:
        """The `shape` that fits the layer at `path`; () if there is none of its kind."""
        return _weight_shape(_layer(backbone, path))


class LinearDelta(Delta):
    """A delta of a linear layer, added to the layer's output; to the text's positions alone where
    the layer reads text and video together (`JointText`).

    With `holds_first` the output at the first position takes no gradient, neither to the delta nor
    to the text: Custom Diffusion's rule for keys and values, whose first token begins every prompt
    and means none of them. It changes no value.
    """

    holds_first = False

    @property
    def parts(self) -> Sequence[Delta]:
        """What is added, each where its own part of a gate is open."""
        return [self]

    def attach(
        self, backbone: Backbone, path: str, strength: float, gate: Gate | None = None
    ) -> Undo:
        rows = backbone.text_rows(path) if isinstance(backbone, JointText) else slice(None)

        def add(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if rows == slice(None):
                return total(args[0], output)
            start, stop, _ = rows.indices(output.shape[1])
            changed = total(args[0][:, start:stop], output[:, start:stop])
            return torch.slice_scatter(output, changed, 1, start, stop)

        def total(inputs: Tensor, output: Tensor) -> Tensor:
            opened = [None] * len(self.parts) if gate is None else gate(inputs)
            found = output
            for part, where in zip(self.parts, opened, strict=True):
                added: Tensor = part(inputs)
                changed = found + (added if strength == 1 else strength * added)
                # Chosen, not multiplied by zero: elsewhere it is the same to the last bit.
                found = changed if where is None else torch.where(where, changed, found)
            if not self.holds_first:
                return found
            return torch.cat([found[:, :1].detach(), found[:, 1:]], dim=1)

        # First of all hooks, so that whoever listens at this layer hears the sum.
        undo: Undo = _layer(backbone, path).register_forward_hook(add, prepend=True).remove
        return undo

    def shape_in(self, backbone: Backbone, path: str) -> tuple[int, ...]:
        shape = super().shape_in(backbone, path)
        return shape if len(shape) == 2 else ()


class FullDelta(LinearDelta):
    """A full (out, in) matrix D: the layer gives W x + D x. Custom Diffusion's K/V training."""

    def __init__(self, out_features: int, in_features: int, *, holds_first: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.holds_first = holds_first

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weight.shape)

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, in) -> (…, out), what is added to the layer's output."""
        return F.linear(inputs, self.weight.to(inputs.dtype))

    def merged(self) -> Tensor:
        """The (out, in) matrix to add to the layer's weight for the same effect."""
        return self.weight


class LowRankDelta(LinearDelta):
    """(alpha / rank) U D with U (out, rank) and D (rank, in); LoRA (Hu et al. 2021), eq. 3."""

    def __init__(
        self,
        out_features: int,
        in_features: int,
        rank: int,
        *,
        alpha: float | None = None,
        holds_first: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """D is random and U is zero; `alpha` None means `rank`, a scale of 1."""
        super().__init__()
        # The scale at which D x has about the size of x, as in the paper's own code.
        self.down = nn.Parameter(_uniform((rank, in_features), in_features, generator))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        self.scale = (rank if alpha is None else alpha) / rank
        self.holds_first = holds_first

    @property
    def shape(self) -> tuple[int, ...]:
        return self.up.shape[0], self.down.shape[1]

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, in) -> (…, out), what is added to the layer's output."""
        inner = F.linear(inputs, self.down.to(inputs.dtype))
        return F.linear(inner, self.up.to(inputs.dtype)) * self.scale

    def merged(self) -> Tensor:
        """The (out, in) matrix to add to the layer's weight for the same effect."""
        return self.up @ self.down * self.scale


class RoutedDelta(LinearDelta):
    """Several linear deltas of one layer, each heard at its own words: gated adapters, merged."""

    def __init__(self, parts: Sequence[FullDelta | LowRankDelta]) -> None:
        """`parts` are in the order of the gate's."""
        super().__init__()
        self._held = nn.ModuleList(parts)

    @property
    def parts(self) -> Sequence[FullDelta | LowRankDelta]:
        return list(self._held)  # type: ignore[arg-type]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].shape

    def named_parts(self) -> dict[str, nn.Parameter]:
        """Its parameters by the names that they have in a file."""
        return {
            f"{index}{_PART}{name}": parameter
            for index, part in enumerate(self.parts)
            for name, parameter in part.named_parameters()
        }


class WeightDelta(Delta):
    """A delta of any layer's own weight and bias: the layer computes with their sums.

    Linear layers, convolutions and norms alike, for methods that train a whole network
    (DreamBooth). Each forward holds one more copy of the weight for the backward pass.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Zeros in the shape and memory layout of `weight` and `bias`."""
        super().__init__()
        self.added_weight = _zeros_like(weight)
        self.added_bias = None if bias is None else _zeros_like(bias)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.added_weight.shape)

    def attach(
        self, backbone: Backbone, path: str, strength: float, gate: Gate | None = None
    ) -> Undo:
        assert gate is None, "only what reads text is gated"
        layer: Any = _layer(backbone, path)
        if not layer.weight.is_floating_point():
            raise AdapterError(
                f"The layer '{path}' has its weights in 8 bits, to which nothing can be added; "
                "set base=full, or train a method that adds to outputs."
            )
        added = {"weight": self.added_weight, "bias": self.added_bias}
        pairs = {name: delta for name, delta in added.items() if delta is not None}
        for name, delta in pairs.items():
            _lay_out(delta, layer._parameters[name])
        return Sums.of(layer).add(pairs, strength)

    def shape_in(self, backbone: Backbone, path: str) -> tuple[int, ...]:
        layer = _layer(backbone, path)
        biased = layer is not None and layer._parameters.get("bias") is not None
        return _weight_shape(layer) if biased or self.added_bias is None else ()

    def merged(self) -> Tensor:
        """What to add to the layer's weight for the same effect, besides `added_bias`."""
        return self.added_weight


class BottleneckDelta(Delta):
    """W_up GELU(W_down x) beside a text attention; DreamVideo's identity adapter (Wei et al. 2023).

    x <- attn(LN(x), text) + [x + W_up GELU(W_down x)] on the residual stream x before its norm,
    half as wide inside. Its path is that of the attention; where the stream enters the norm is
    what `AttentionSite.norm` says.
    """

    def __init__(self, dim: int, *, generator: torch.Generator | None = None) -> None:
        """W_down and its bias start as torch's linear layers do, W_up and its bias as zero."""
        super().__init__()
        hidden = dim // 2
        self.narrow = nn.Parameter(_uniform((hidden, dim), dim, generator))
        self.narrow_bias = nn.Parameter(_uniform((hidden,), dim, generator))
        self.widen = nn.Parameter(torch.zeros(dim, hidden))
        self.widen_bias = nn.Parameter(torch.zeros(dim))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.widen.shape[0],)

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, dim) -> (…, dim), what is added to the attention's output."""
        kind = inputs.dtype
        inner = F.gelu(F.linear(inputs, self.narrow.to(kind), self.narrow_bias.to(kind)))
        return F.linear(inner, self.widen.to(kind), self.widen_bias.to(kind))

    def attach(
        self, backbone: Backbone, path: str, strength: float, gate: Gate | None = None
    ) -> Undo:
        assert gate is None, "only what reads text is gated"
        norm, attention = _norm(backbone, path), _layer(backbone, path)
        assert norm is not None, "check_fits found its norm"
        streams: list[Tensor] = []

        def note(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            streams[:] = [args[0]]

        def add(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
            added: Tensor = self(streams.pop())
            # Where guidance halves part between the norm and the attention, both had one stream.
            added = torch.cat([added] * (len(output) // len(added)))
            return output + (added if strength == 1 else strength * added)

        hooks = (
            norm.register_forward_pre_hook(note),
            attention.register_forward_hook(add, prepend=True),
        )

        def undo() -> None:
            for hook in hooks:
                hook.remove()

        return undo

    def shape_in(self, backbone: Backbone, path: str) -> tuple[int, ...]:
        return _weight_shape(_norm(backbone, path))


def read_delta(parts: Mapping[str, Tensor], alpha: float | None) -> Delta:
    """The delta whose parameters are `parts`, by name.

    Raises:
        KeyError, ValueError: they are no delta's, or do not fit together.
    """
    delta: Delta
    if any(_PART in name for name in parts):
        return _read_routed(parts, alpha)
    for name in {"weight", "up", "down", "widen"} & parts.keys():
        if parts[name].ndim != 2:
            raise ValueError(f"{name} is no matrix")
    if "weight" in parts:
        delta = FullDelta(*parts["weight"].shape)
    elif "added_weight" in parts:
        delta = WeightDelta(parts["added_weight"], parts.get("added_bias"))
    elif "widen" in parts:
        delta = BottleneckDelta(parts["widen"].shape[0])
    else:
        up, down = parts["up"], parts["down"]
        delta = LowRankDelta(up.shape[0], down.shape[1], down.shape[0], alpha=alpha)
    for name, parameter in delta.named_parameters():
        if parts[name].shape != parameter.shape:
            raise ValueError(f"{name} has another shape")
        with torch.no_grad():
            parameter.copy_(parts[name])
    return delta


def _read_routed(parts: Mapping[str, Tensor], alpha: float | None) -> RoutedDelta:
    split: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts.items():
        index, _, inner = name.partition(_PART)
        split.setdefault(int(index), {})[inner] = tensor
    held = [read_delta(split[index], alpha) for index in range(len(split))]
    if not all(isinstance(part, FullDelta | LowRankDelta) for part in held):
        raise ValueError("only linear deltas stand together")
    return RoutedDelta([part for part in held if isinstance(part, FullDelta | LowRankDelta)])


def _layer(backbone: Backbone, path: str) -> Any:
    """The layer at `path`, or None if there is none."""
    try:
        return backbone.layer(path)
    except AttributeError:
        return None


def _norm(backbone: Backbone, path: str) -> nn.Module | None:
    """The norm before the attention at `path`, or None if there is no such site."""
    sites = backbone.sites(backbone.frames, *backbone.size)
    found = [site.norm for site in sites if site.path == path and site.norm]
    return _layer(backbone, found[0]) if found else None


def _weight_shape(layer: nn.Module | None) -> tuple[int, ...]:
    weight = getattr(layer, "weight", None)
    return tuple(weight.shape) if isinstance(weight, Tensor) else ()


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator | None) -> Tensor:
    bound = 1 / math.sqrt(fan_in)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _zeros_like(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.zeros_like(tensor, dtype=torch.float32, device="cpu"))


def _lay_out(delta: Tensor, weight: Tensor) -> None:
    """Give `delta` the strides of `weight`: a file keeps none, and a sum could have either's."""
    if delta.stride() != weight.stride():
        delta.data = torch.empty_like(weight, dtype=delta.dtype).copy_(delta.data)
