"""The adapter: everything a customization learned, put on a backbone and taken off again.

It holds learned words and deltas of named linear layers. Attaching adds forward hooks and changes
no weight, so detaching gives the base model back exactly. Making a new one for some subjects is
`customvideo.adapters.build`; training one is not this package's room.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from customvideo.adapters.attachment import Attachment
from customvideo.adapters.deltas import Delta, FullDelta, LowRankDelta
from customvideo.adapters.header import AdapterHeader, metadata, read_file
from customvideo.adapters.tokens import LearnedTokens
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError
from customvideo.files import write_bytes
from customvideo.subjects.prompt import LearnedWord

__all__ = ["Adapter"]

_WORDS = "words"
_DELTAS = "deltas."


class Adapter(nn.Module):
    """Learned words plus deltas of the backbone's linear layers, and a header that says whose."""

    def __init__(
        self, header: AdapterHeader, tokens: LearnedTokens, deltas: Mapping[str, Delta]
    ) -> None:
        """`deltas` maps the path of a linear layer inside the denoiser to what is added to it."""
        super().__init__()
        assert header.learned_words == tokens.words, "the header names the words in their order"
        self.header = header
        self.tokens = tokens
        # Module names may not hold dots.
        self._deltas = nn.ModuleDict({_escape(path): delta for path, delta in deltas.items()})
        self._paths = tuple(deltas)

    @property
    def words(self) -> tuple[LearnedWord, ...]:
        """The learned words, in the order of the subjects."""
        return self.tokens.words

    @property
    def deltas(self) -> dict[str, Delta]:
        """Path of a linear layer -> its delta."""
        return {path: cast(Delta, self._deltas[_escape(path)]) for path in self._paths}

    def parameter_groups(self, word_lr: float, weight_lr: float) -> list[dict[str, Any]]:
        """The parameters in optimizer groups: words, and deltas if there are any."""
        weights = list(self._deltas.parameters())
        groups: list[dict[str, Any]] = [{"params": [self.tokens.value], "lr": word_lr}]
        return groups + ([{"params": weights, "lr": weight_lr}] if weights else [])

    def attach(self, backbone: Backbone, strength: float = 1.0) -> Attachment:
        """Put the adapter on `backbone`, at once; it moves to the backbone's device.

            with adapter.attach(backbone): ...      or      handle = adapter.attach(backbone)
                                                            ...
                                                            handle.detach()

        Args:
            backbone: the backbone it was made for.
            strength: scales the deltas. The words are always there in full: between a word's
                vector and another lies no weaker form of the subject. At 0 the words meet the base
                model's own weights.

        Raises:
            AdapterError: the backbone is another one.
            PromptError: the backbone knows a word already, for instance from this very adapter.
        """
        self.check_fits(backbone)
        self.to(backbone.device)
        with ExitStack() as undo:
            words = self.tokens.attach(backbone.tables()[0])
            undo.callback(words.detach)
            for path, delta in self.deltas.items() if strength else ():
                layer = backbone.denoiser.get_submodule(path)
                # First of all hooks, so that whoever listens at this layer hears the sum.
                hook = layer.register_forward_hook(_adding(delta, strength), prepend=True)
                undo.callback(hook.remove)
            return Attachment(undo.pop_all(), words.check)

    def check_fits(self, backbone: Backbone) -> None:
        """Refuse any backbone but the one the adapter was made for.

        Raises:
            AdapterError: says what differs.
        """
        header = self.header
        made_for = f"The adapter was made for the backbone '{header.backbone}' ({header.family})"
        if header.family != backbone.family:
            raise AdapterError(
                f"{made_for} and cannot be used with '{backbone.name}' ({backbone.family}); give "
                f"that backbone, or train an adapter for this one."
            )
        for path, delta in self.deltas.items():
            wanted, found = _shape(delta), _layer_shape(backbone.denoiser, path)
            if wanted != found:
                there = f"is {found[0]}x{found[1]}" if found else "is missing"
                raise AdapterError(
                    f"{made_for} and changes its {wanted[0]}x{wanted[1]} layer '{path}', which "
                    f"{there} in '{backbone.name}'; give the backbone it was made for."
                )
        if header.fingerprint != backbone.fingerprint:
            raise AdapterError(
                f"{made_for}, whose weights differ from those of '{backbone.name}'; give that very "
                "backbone, or train an adapter for this one."
            )

    def save(self, path: Path | str) -> None:
        """Write the adapter to one safetensors file, all or nothing.

        Raises:
            StorageError: the place cannot be written.
        """
        tensors = {_WORDS: self.tokens.value} | {
            f"{_DELTAS}{layer}.{name}": parameter
            for layer, delta in self.deltas.items()
            for name, parameter in delta.named_parameters()
        }
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_bytes(path, safetensors.torch.save(whole, metadata=metadata(self.header)))

    @classmethod
    def load(cls, path: Path | str) -> Adapter:
        """Read what `save` wrote, on the CPU.

        Raises:
            AdapterError: the file is missing, incomplete, or no adapter.
        """
        header, tensors = read_file(Path(path))
        try:
            return _assemble(header, tensors)
        except (KeyError, ValueError) as error:
            raise AdapterError(
                f"The weights in '{path}' do not match its header; copy the file again, or train "
                "again."
            ) from error


def _assemble(header: AdapterHeader, tensors: dict[str, Tensor]) -> Adapter:
    """The adapter in a file; KeyError or ValueError if the parts do not agree."""
    initial = tensors[_WORDS]
    if initial.ndim != 2 or len(initial) != sum(word.vectors for word in header.words):
        raise ValueError("not one row per vector of each word")
    tokens = LearnedTokens(header.learned_words, initial.shape[-1], initial)
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name != _WORDS:
            path, _, part = name.removeprefix(_DELTAS).rpartition(".")
            layers.setdefault(path, {})[part] = tensor
    deltas = {path: _delta(parts, header.alpha) for path, parts in layers.items()}
    return Adapter(header, tokens, deltas)


def _delta(parts: dict[str, Tensor], alpha: float | None) -> Delta:
    delta: Delta
    if "weight" in parts:
        delta = FullDelta(*parts["weight"].shape)
    else:
        up, down = parts["up"], parts["down"]
        delta = LowRankDelta(up.shape[0], down.shape[1], down.shape[0], alpha=alpha)
    for name, parameter in delta.named_parameters():
        if parts[name].shape != parameter.shape:
            raise ValueError(f"{name} has another shape")
        with torch.no_grad():
            parameter.copy_(parts[name])
    return delta


def _adding(delta: Delta, strength: float) -> Any:
    def add(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        added: Tensor = delta(args[0])
        return output + (added if strength == 1 else strength * added)

    return add


def _escape(path: str) -> str:
    return path.replace(".", "/")


def _shape(delta: Delta) -> tuple[int, ...]:
    """(out, in) of the layer that `delta` belongs to."""
    if isinstance(delta, FullDelta):
        return tuple(delta.weight.shape)
    return delta.up.shape[0], delta.down.shape[1]


def _layer_shape(denoiser: nn.Module, path: str) -> tuple[int, ...]:
    """(out, in) of the linear layer at `path`; () if there is none."""
    try:
        weight = getattr(denoiser.get_submodule(path), "weight", None)
    except AttributeError:
        return ()
    return tuple(weight.shape) if isinstance(weight, Tensor) and weight.ndim == 2 else ()
