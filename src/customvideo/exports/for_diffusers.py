"""For diffusers: Custom Diffusion's processors or a LoRA, words, and the few lines that load them.

Where diffusers has no loader for the words, those lines are one. `verify.py` runs the very same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from customvideo.adapters.deltas import FullDelta, LowRankDelta
from customvideo.exports.describing import file_metadata
from customvideo.exports.lora import expert_files, write_lora
from customvideo.exports.names import places
from customvideo.exports.order import Exported, Order
from customvideo.exports.possible import CLIP
from customvideo.exports.tensors import write_tensors
from customvideo.exports.words import write_inversion, write_rows
from customvideo.files import write_text

__all__ = ["LOADER", "PROCESSORS", "Diffusers"]

LOADER = "load.py"
PROCESSORS = "pytorch_custom_diffusion_weights.safetensors"
WORDS = "words.safetensors"
_LORA = "pytorch_lora_weights"
_NEEDS_PEFT = "diffusers loads LoRAs with the package peft: pip install peft."

_HEAD = '''"""load(pipeline) puts what customvideo learned on a stock diffusers pipeline."""

from pathlib import Path
{imports}
HERE = Path(__file__).parent


def load(pipeline):
'''
_LOAD_PROCESSORS = f'''    # Without _pipeline diffusers reads the file and then changes nothing.
    pipeline.unet.load_attn_procs(HERE, weight_name="{PROCESSORS}", _pipeline=pipeline)
'''
_LOAD_INVERSIONS = """    for file in sorted(HERE.glob("words/*.safetensors")):
        pipeline.load_textual_inversion(HERE / "words", weight_name=file.name)
"""
_LOAD_LORA = """    pipeline.load_lora_weights(HERE, weight_name="{file}"{options})
"""
_ROWS_NEED = """
from safetensors.torch import load_file
from transformers import AddedToken
"""
_LOAD_ROWS = """    words, encoder = load_file(HERE / "{file}"), pipeline.text_encoder
    pipeline.tokenizer.add_tokens([AddedToken(word, lstrip={closes_up}) for word in words])
    for word, row in words.items():
        index = pipeline.tokenizer.convert_tokens_to_ids(word)
        table = encoder.get_input_embeddings()
        # Some tables have spare rows: never make one smaller.
        if index >= table.num_embeddings:
            table = encoder.resize_token_embeddings(index + 1, mean_resizing=False)
        table.weight.data[index] = row.to(table.weight)
"""


class Diffusers:
    """Files that diffusers' own loaders read, and `load.py`, which calls them."""

    def write(self, order: Order, folder: Path) -> Exported:
        """Write weights, words and `load.py`."""
        if order.backbone.family in CLIP:
            return _write_clip(order, folder)
        written = Exported()
        steps = ""
        if order.adapter.deltas:
            written = replace(write_lora(order, folder, _LORA), notes=(_NEEDS_PEFT,))
            for expert, file in expert_files(order, _LORA).items():
                if (folder / file).exists():
                    second = expert.endswith("_2")
                    options = ", load_into_transformer_2=True" if second else ""
                    steps += _LOAD_LORA.format(file=file, options=options)
        imports = ""
        if order.adapter.words:
            write_rows(order, folder / WORDS)
            imports = _ROWS_NEED
            closes_up = order.backbone.tables()[0].closes_up
            steps += _LOAD_ROWS.format(file=WORDS, closes_up=closes_up)
        write_text(folder / LOADER, _HEAD.format(imports=imports) + steps)
        return written


def _write_clip(order: Order, folder: Path) -> Exported:
    steps = ""
    if order.adapter.deltas:
        tensors = _processors(order)
        write_tensors(
            folder / PROCESSORS, tensors, file_metadata(order, "custom-diffusion"), order.dtype
        )
        steps += _LOAD_PROCESSORS
    for word in order.adapter.words:
        write_inversion(order, folder / "words" / f"{word.name}.safetensors", word.name)
    if order.adapter.words:
        steps += _LOAD_INVERSIONS
    write_text(folder / LOADER, _HEAD.format(imports="") + steps)
    slow = "Its processors form whole attention maps, which takes more memory and time than usual."
    return Exported(notes=(slow,) if order.adapter.deltas else ())


def _processors(order: Order) -> dict[str, Tensor]:
    """Whole weights of every attention that is changed, and nothing for those that are not.

    diffusers takes the file for all processors at once, and those named without a weight for
    Custom Diffusion's that train nothing.
    """
    network: Any = order.backbone.denoiser
    names, deltas = places(order.backbone, order.target), order.adapter.deltas
    changed = {path.rpartition(".to_")[0] for path in deltas}
    found: dict[str, Tensor] = {}
    for processor in network.attn_processors:
        attention = processor.removesuffix(".processor")
        if attention not in changed:
            found[processor] = torch.zeros(0)
            continue
        outer = {f"{attention}.to_q", f"{attention}.to_out.0"} & set(deltas)
        parts = ("to_k", "to_v", *(("to_q", "to_out.0") if outer else ()))
        for path in (f"{attention}.{part}" for part in parts):
            layer, delta = network.get_submodule(path), deltas.get(path)
            assert delta is None or isinstance(delta, FullDelta | LowRankDelta)
            added = 0 if delta is None else delta.merged().to(layer.weight.device)
            found[f"{names[path]}.weight"] = layer.weight.float() + added
            if layer.bias is not None:
                found[f"{names[path]}.bias"] = layer.bias.float()
    return found
