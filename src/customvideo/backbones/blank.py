"""Models without their weights: every network made of its config alone, nothing read or fetched.

Loading goes through the families' own loaders, so that a blank model has the very layers, sites and
types of the real one. What is made of it is the caller's business: with tensors that hold no
numbers it can be counted (`Blank`), with random ones it can be timed (`without_weights`). Which
configs a published model has is `sizes.py`.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase, T5TokenizerFast

from customvideo.backbones.base import Backbone, load_backbone
from customvideo.backbones.eight_bits import saved_bytes
from customvideo.backbones.folder import read_json
from customvideo.backbones.sizes import Published
from customvideo.errors import BackboneError
from customvideo.quiet import without_warnings

__all__ = ["Blank", "blank", "staying", "without_weights"]

_SPECIAL = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -9.0)]
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")


@dataclass(frozen=True, eq=False)
class Blank:
    """A model whose tensors have shapes, types and places, but no numbers.

    Attributes:
        backbone: as its family loads it, on the CPU; to be used inside `mode` only.
        networks: part of the pipeline -> network, for all that have weights.
        mode: what makes tensors without numbers.
    """

    backbone: Backbone
    networks: dict[str, nn.Module]
    mode: FakeTensorMode

    def bytes(self, *, eight_bits: bool = False) -> dict[str, int]:
        """Bytes of each part's weights, in the types they are kept in, or with 8 bits where
        `customvideo.backbones.eight_bits` keeps them."""
        clip = self.backbone.family in ("unet3d", "animatediff")
        whole = ("vae", "text_encoder") if clip else ("vae",)
        return {
            name: _bytes(network)
            - (saved_bytes(network) if eight_bits and name not in whole else 0)
            for name, network in self.networks.items()
        }

    def numbers(self) -> dict[str, int]:
        """How many numbers each part's weights are."""
        return {
            name: sum(weight.numel() for weight in network.parameters())
            for name, network in self.networks.items()
        }


def blank(model: Published | Path | str, dtype: str) -> Blank:
    """The model as its family would load it in `dtype` ("fp32", "bf16" or "fp16"), without weights.

    `model` is a published one, a folder, or a name of the table that needs nothing fetched.

    Raises:
        BackboneError: a folder is incomplete or of another kind of model, or its family cannot make
            a model without weights.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with ExitStack() as undo:
        name, folder = str(model), model
        if isinstance(model, Published):
            name, folder = model.hub, Path(undo.enter_context(tempfile.TemporaryDirectory()))
            model.write(folder)
        undo.enter_context(without_warnings("diffusers", "transformers", "customvideo"))
        networks = undo.enter_context(without_weights(mode=mode))
        try:
            backbone = load_backbone(str(folder), "cpu", dtype)
        except Exception as error:  # whatever a family's own code makes of tensors without numbers
            if isinstance(error, BackboneError) and not isinstance(model, Published):
                raise
            raise BackboneError(
                f"What '{name}' needs cannot be counted ({type(error).__name__}: {error}); train a "
                "few steps instead, with steps=3."
            ) from error
    return Blank(backbone, networks, mode)


@contextmanager
def without_weights(
    device: str = "meta", mode: FakeTensorMode | None = None
) -> Iterator[dict[str, nn.Module]]:
    """Inside, diffusers and transformers make networks of their configs instead of reading weights.

    Their numbers are whatever the networks' own initialisers draw on `device`, the same ones each
    time for a part of the same name; with a `mode` they have none, and pass for networks on the
    CPU. A tokenizer whose files are not there is replaced
    by one that knows no word. The result fills with what was made, by the names of the folders.
    """
    made: dict[str, nn.Module] = {}

    def keep(name: str, network: Any) -> Any:
        made[name] = network.eval() if mode is None else _emptied(network.eval(), mode)
        return made[name]

    def diffuser(cls: Any, path: Any, **options: Any) -> Any:
        place = _place(path, options)
        with _seeded(place.name, device), torch.device(device), _type(options):
            network = cls.from_config(cls.load_config(place, local_files_only=True))
        return keep(place.name, _partly_float32(network))

    def transformer(cls: Any, path: Any, **options: Any) -> Any:
        place = _place(path, options)
        config = cls.config_class.from_pretrained(place, local_files_only=True)
        with _seeded(place.name, device), torch.device(device), _type(options):
            network = cls(config)
        return keep(place.name, network)

    usual = PreTrainedTokenizerBase.__dict__["from_pretrained"].__func__

    def tokenizer(cls: Any, path: Any, *args: Any, **options: Any) -> Any:
        place = _place(path, options)
        if any((place / name).is_file() for name in _TOKENIZER_FILES):
            return usual(cls, path, *args, **options)
        return _wordless(int(read_json(place / "tokenizer_config.json")["model_max_length"]))

    replaced: list[tuple[Any, Any]] = [
        (ModelMixin, diffuser),
        (PreTrainedModel, transformer),
        (PreTrainedTokenizerBase, tokenizer),
    ]
    before = [(owner, owner.__dict__["from_pretrained"]) for owner, _ in replaced]
    try:
        for owner, function in replaced:
            owner.from_pretrained = classmethod(function)
        yield made
    finally:
        for owner, function in before:
            owner.from_pretrained = function


def _emptied(network: Any, mode: FakeTensorMode) -> Any:
    """A network on the meta device as one on the CPU whose tensors have no numbers.

    It stays where it is, and has no state that could be told from another's.
    """
    cpu = torch.device("cpu")
    # One tensor may be in several places.
    known: dict[int, Tensor] = {}

    def empty(tensor: Tensor) -> Tensor:
        found = known.get(id(tensor))
        if found is None:
            found = FakeTensor(mode, tensor.detach(), cpu)
            if isinstance(tensor, nn.Parameter):
                found = nn.Parameter(found, requires_grad=False)
            known[id(tensor)] = found
        return found

    alive = list(network.modules())
    for module in alive:
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None and tensor.is_meta:
                    table[name] = empty(tensor)
    network.state_dict = dict
    return staying(network)


def staying(module: Any) -> Any:
    """The module, which from now on stays where it is: tensors without numbers cannot be moved."""
    module.to = lambda *_args, **_options: module
    return module


def _place(path: Any, options: dict[str, Any]) -> Path:
    return Path(path) / (options.get("subfolder") or "")


@contextmanager
def _seeded(name: str, device: str) -> Iterator[None]:
    """Draws inside depend on `name` alone, and leave no trace."""
    with torch.random.fork_rng([torch.device(device)] if device.startswith("cuda") else []):
        torch.manual_seed(zlib.crc32(name.encode()))
        yield


@contextmanager
def _type(options: dict[str, Any]) -> Iterator[None]:
    """New tensors have the type that a loader was asked for."""
    wanted = options.get("torch_dtype") or options.get("dtype")
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(wanted if isinstance(wanted, torch.dtype) else torch.float32)
        yield
    finally:
        torch.set_default_dtype(before)


def _partly_float32(network: Any) -> Any:
    """The network with those modules in float32 that its class never keeps in half precision."""
    kept = getattr(network, "_keep_in_fp32_modules", None) or ()
    for path, module in network.named_modules():
        if any(name in path.split(".") for name in kept):
            module.float()
    for name, weight in network.named_parameters():
        if any(part in kept for part in name.split(".")):
            weight.data = weight.data.float()
    return network


def _wordless(length: int) -> Any:
    """A tokenizer that knows no word, and reads `length` tokens."""
    return T5TokenizerFast(vocab=_SPECIAL, extra_ids=0, model_max_length=length)


def _bytes(network: nn.Module) -> int:
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
