"""What exported files say about themselves: metadata that programs show, and a page to read."""

from __future__ import annotations

import json
from collections.abc import Sequence

from customvideo.exports.names import experts
from customvideo.exports.order import DTYPES, Order
from customvideo.exports.possible import CLIP
from customvideo.subjects.prompt import LearnedWord, list_subjects

__all__ = ["file_metadata", "hint", "prompt_words", "usage"]

_SPELLS_OUT = ("diffusers", "merged-folder")
"""Targets whose program reads a word of several vectors as one with CLIP alone."""
_MODULES = {"wan": "networks.lora_wan"}
_BASES = {"animatediff": "sd_1.5", "ltx": "ltxv"}
_TOOLS = {
    "comfyui": "Copy what lies in `loras` and `embeddings` into the folders of the same names in "
    "ComfyUI's `models`. In prompts {comfy_words}.",
    "kohya": "`loras` holds the LoRA under the names of kohya's trainers. In ComfyUI "
    "{comfy_words}, once `embeddings` is copied, too.",
    "diffusers": "`load.py` puts it on a stock pipeline: `from load import load; load(pipeline)`. "
    "In prompts write {words}.",
    "textual-inversion": "`pipeline.load_textual_inversion(folder)` for the folder of each word. "
    "In prompts write {words}.",
    "merged-folder": "An ordinary diffusers folder: `DiffusionPipeline.from_pretrained(folder)`. "
    "In prompts write {words}.",
}


def hint(order: Order) -> str:
    """One sentence on what to write in prompts."""
    words = order.adapter.words
    if not words:
        return "It has no words of its own."
    return f"Write each word before its category: {list_subjects(words)}."


def prompt_words(order: Order) -> list[str]:
    """The learned words as prompts name them: `<tom> cat`, or all of a word's vectors one by one,
    `<tom> <tom>_1 cat`, where the target's program does not know that they are one word."""
    apart = order.target in _SPELLS_OUT and order.backbone.family not in CLIP
    return [
        f"{' '.join(word.tokens) if apart else word.word} {word.category}"
        for word in order.adapter.words
    ]


def file_metadata(order: Order, kind: str, rank: int | None = None) -> dict[str, str]:
    """Metadata for one file, a `kind` of modelspec's such as lora; `rank` is the largest in it,
    None if its matrices are whole."""
    base = _base(order)
    found = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{base}/{kind}",
        "modelspec.implementation": "customvideo",
        "modelspec.title": order.stem,
        "modelspec.usage_hint": hint(order),
        "modelspec.trigger_phrase": ", ".join(prompt_words(order)),
        "modelspec.resolution": "{1}x{0}".format(*order.backbone.size),
        "modelspec.license": order.backbone.licence or "",
        "trained_words": json.dumps(prompt_words(order)),
        "customvideo": json.dumps(_own(order), sort_keys=True),
    }
    if rank:
        found |= {
            "ss_base_model_version": base,
            "ss_network_module": _MODULES.get(order.backbone.family, "networks.lora"),
            "ss_network_dim": str(rank),
            "ss_network_alpha": str(rank),
            "ss_network_args": "{}",
        }
    return {key: value for key, value in found.items() if value}


def usage(order: Order, notes: Sequence[str]) -> str:
    """A page in Markdown: what this folder is, how to load it, what to prompt."""
    words = order.adapter.words
    texts = {
        "words": " or ".join(f"`{text}`" for text in prompt_words(order)) or "what you like",
        "comfy_words": _comfy(words),
    }
    licence = order.backbone.licence
    lines = [
        *(["---", f"license: {licence}", "---", ""] if licence else []),
        f"# {order.stem}",
        "",
        f"Learned by customvideo on {order.backbone.name}, for {order.target}.",
        "",
        _TOOLS[order.target].format(**texts),
        "",
    ]
    if words and all(len(word.tokens) == 1 for word in words):
        lines += [f"Each word stands before its category: `{list_subjects(words)}`."]
    backbone, asked = order.backbone, dict(order.sampling)
    usual = {"frames": backbone.frames, "height": backbone.size[0], "width": backbone.size[1]}
    asked |= {key: asked.get(key) or value for key, value in usual.items()}
    sampling = {key: value for key, value in asked.items() if value not in (None, "")}
    if sampling:
        lines += ["", "Here it is sampled as follows; other programs have to be told:", ""]
        lines += [f"- {key}: {value}" for key, value in sampling.items()]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _comfy(words: Sequence[LearnedWord]) -> str:
    if not words:
        return "write what you like"
    return "write " + " or ".join(f"`embedding:{word.name} {word.category}`" for word in words)


def _base(order: Order) -> str:
    family = order.backbone.family
    if family == "wan":
        return "wan2.2" if len(experts(order.backbone)) > 1 else "wan2.1"
    return _BASES.get(family, family)


def _own(order: Order) -> dict[str, object]:
    """Our own key: the adapter's header, and how the files were made of it."""
    header = order.adapter.header.model_dump(mode="json")
    dtype = next(name for name, kind in DTYPES.items() if kind == order.dtype)
    made = {"target": order.target, "rank": order.rank, "dtype": dtype}
    return {"header": header, "sampling": dict(order.sampling), "export": made}
