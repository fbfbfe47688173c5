"""The adapter: everything a customization learned, put on a backbone and taken off again.

It holds learned words, deltas of named layers, and whatever else a method trains. Attaching changes
no weight, so detaching gives the base model back exactly. Making a new one for some subjects is
`customvideo.adapters.build`; training one is not this package's room.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from customvideo.adapters.attachment import Attachment
from customvideo.adapters.deltas import Delta, LinearDelta, read_delta
from customvideo.adapters.gates import Gate
from customvideo.adapters.header import (
    AdapterHeader,
    metadata,
    read_file,
    require_successor,
)
from customvideo.adapters.succession import begun
from customvideo.adapters.tokens import LearnedTokens
from customvideo.backbones.base import Backbone
from customvideo.errors import AdapterError, PromptError
from customvideo.files import write_bytes
from customvideo.subjects.prompt import LearnedWord, Prompt

__all__ = ["Adapter", "asked_of"]

_WORDS = "words"
_DELTAS = "deltas."
_EXTRAS = "extras."


class Adapter(nn.Module):
    """Learned words plus deltas of the backbone's layers, and a header that says whose."""

    def __init__(
        self,
        header: AdapterHeader,
        tokens: LearnedTokens,
        deltas: Mapping[str, Delta],
        extras: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`deltas` maps the path of a layer, as the backbone takes it, to what is added to it.

        `extras` are tensors by name that are trained and saved with the rest and change nothing
        when attached: what only the method's losses, or its way to render, make use of.
        """
        super().__init__()
        assert header.learned_words == tokens.words, "the header names the words in their order"
        self.header = header
        self.tokens = tokens
        # Module names may not hold dots.
        self._deltas = nn.ModuleDict({_escape(path): delta for path, delta in deltas.items()})
        self._paths = tuple(deltas)
        self._extras = nn.ParameterDict(
            {_escape(name): tensor.detach().float().clone() for name, tensor in extras.items()}
            if extras
            else {}
        )

    @property
    def words(self) -> tuple[LearnedWord, ...]:
        """The learned words, in the order of the subjects."""
        return self.tokens.words

    @property
    def deltas(self) -> dict[str, Delta]:
        """Path of a layer -> its delta."""
        return {path: cast(Delta, self._deltas[_escape(path)]) for path in self._paths}

    @property
    def extras(self) -> dict[str, nn.Parameter]:
        """Name -> a parameter that changes nothing by being attached."""
        return {name.replace("/", "."): value for name, value in self._extras.items()}

    def with_extras(self, extras: Mapping[str, Tensor]) -> Adapter:
        """The same adapter, sharing every parameter, with extras that start as `extras`."""
        return Adapter(self.header, self.tokens, self.deltas, extras)

    def parameter_groups(self, word_lr: float, weight_lr: float) -> list[dict[str, Any]]:
        """The parameters in optimizer groups: words, and deltas and extras if there are any."""
        weights = [*self._deltas.parameters(), *self._extras.parameters()]
        groups: list[dict[str, Any]] = [{"params": [self.tokens.value], "lr": word_lr}]
        return groups + ([{"params": weights, "lr": weight_lr}] if weights else [])

    def train_only(self, *, words: bool = True, paths: Collection[str] | None = None) -> None:
        """Freeze all but the words, if asked for, and the deltas at `paths`; None means all.

        Extras train where any delta does. What is frozen still counts, but gets no gradient.
        """
        chosen = set(self._paths if paths is None else paths)
        self.tokens.requires_grad_(words)
        for path, delta in self.deltas.items():
            delta.requires_grad_(path in chosen)
        self._extras.requires_grad_(paths is None or len(paths) > 0)

    def go_on_from(self, earlier: Adapter) -> None:
        """Begin where `earlier` ended: with its deltas, and with its words, which are held.

        One without words, as another trainer's weights are, may change other layers: they all
        train on.

        Raises:
            AdapterError: it is of another backbone or method, or has words or layers that this one
                lacks.
        """
        require_successor(self.header, earlier.header)
        if not earlier.words:
            self._take_over(earlier)
            return
        with torch.no_grad():
            for word, row in zip(self.tokens.tokens, self.tokens.value, strict=True):
                if word in earlier.tokens.tokens:
                    row.copy_(earlier.tokens.value[earlier.tokens.tokens.index(word)])
            for name, extra in self.extras.items():
                if name in earlier.extras:
                    extra.copy_(earlier.extras[name])
        self.tokens.hold({word.name for word in earlier.words})
        if set(earlier.deltas) != set(self.deltas):
            raise AdapterError(
                "The earlier adapter changes other layers than are to be trained now; train with "
                "the settings that it was trained with."
            )
        for path, delta in earlier.deltas.items():
            # Its own, whatever their rank: a merged adapter may have other ones than the method.
            copied, own = copy.deepcopy(delta), self.deltas[path]
            if isinstance(copied, LinearDelta) and isinstance(own, LinearDelta):
                # A rule of training, which a file does not keep.
                copied.holds_first = own.holds_first
            self._deltas[_escape(path)] = copied
        self.header = self.header.model_copy(update={"alpha": earlier.header.alpha})

    def _take_over(self, earlier: Adapter) -> None:
        own = self.deltas
        for path, found in earlier.deltas.items():
            delta = begun(path, own.get(path), found, self.header.alpha)
            self._deltas[_escape(path)] = delta
        self._paths = tuple(dict.fromkeys([*self._paths, *earlier.deltas]))

    def prompt(self, text: str) -> Prompt:
        """`text` with the words that it may use.

        Raises:
            PromptError: it names a subject that was removed.
        """
        return asked_of(self.words, self.header.removed, text)

    def select(self, ids: Tensor) -> Tensor:
        """Where the words stand in encoded prompts, as `LearnedTokens.select`."""
        return self.tokens.select(ids)

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
            undo.callback(_forget_prompts, backbone)
            _forget_prompts(backbone)
            words = self.tokens.attach(backbone.tables()[0])
            undo.callback(words.detach)
            gate = self._gate(backbone)
            for path, delta in self.deltas.items() if strength else ():
                undo.callback(delta.attach(backbone, path, strength, gate))
            return Attachment(undo.pop_all(), words.check)

    def _gate(self, backbone: Backbone) -> Gate | None:
        kind, parts = self.header.gate, self.header.parts or (len(self.words),)
        return None if kind == "none" else Gate(backbone, self.tokens, kind, parts)

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
            wanted, found = delta.shape, delta.shape_in(backbone, path)
            if wanted != found:
                there = f"is {_size(found)}" if found else "is missing"
                raise AdapterError(
                    f"{made_for} and changes its layer '{path}', {_size(wanted)}, which {there} "
                    f"in '{backbone.name}'; give the backbone it was made for."
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
            for name, parameter in delta.named_parts().items()
        }
        tensors |= {f"{_EXTRAS}{name}": parameter for name, parameter in self.extras.items()}
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
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise AdapterError(
                f"The weights in '{path}' do not match its header; copy the file again, or train "
                "again."
            ) from error


def asked_of(words: Sequence[LearnedWord], removed: Collection[str], text: str) -> Prompt:
    """`text` with the `words` that it may use; of `removed` ones it may use none that is not there.

    Raises:
        PromptError: it names one.
    """
    asked = Prompt(text, tuple(words))
    gone = [word for word in asked.unknown if word.strip("<>") in removed]
    if gone:
        raise PromptError(
            f"{', '.join(gone)} was removed from the adapter; write a prompt without it, or "
            "use an adapter that still has it."
        )
    return asked


def _assemble(header: AdapterHeader, tensors: dict[str, Tensor]) -> Adapter:
    """The adapter in a file; an error of Python's own kinds if the parts do not agree."""
    initial = tensors[_WORDS]
    if initial.ndim != 2 or len(initial) != sum(word.vectors for word in header.words):
        raise ValueError("not one row per vector of each word")
    tokens = LearnedTokens(header.learned_words, initial.shape[-1], initial, header.space)
    layers: dict[str, dict[str, Tensor]] = {}
    extras: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(_EXTRAS):
            extras[name.removeprefix(_EXTRAS)] = tensor
        elif name != _WORDS:
            path, _, part = name.removeprefix(_DELTAS).rpartition(".")
            layers.setdefault(path, {})[part] = tensor
    deltas = {path: read_delta(parts, header.alpha) for path, parts in layers.items()}
    return Adapter(header, tokens, deltas, extras)


def _escape(path: str) -> str:
    return path.replace(".", "/")


def _forget_prompts(backbone: Backbone) -> None:
    """What was remembered of encoded prompts holds no longer, once anything is put on or off."""
    for table in backbone.tables():
        table.memory.clear()


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if len(shape) > 1 else f"{shape[0]} wide"
