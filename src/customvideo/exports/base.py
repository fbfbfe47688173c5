"""Writing an export: an order goes in, a folder of files comes out, whole or not at all.

The targets are rows of `targets.TARGETS`, one file each. What a target cannot carry is refused
before anything is written (`possible.py`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from customvideo.adapters.adapter import Adapter
from customvideo.exports.describing import usage
from customvideo.exports.order import Exported, Order, Target
from customvideo.exports.possible import refuse
from customvideo.exports.targets import TARGETS, check_target
from customvideo.exports.verify import verify
from customvideo.files import atomic_folder, write_text
from customvideo.methods.rendering import renderer
from customvideo.subjects.prompt import Prompt
from customvideo.tables import import_target

__all__ = ["export"]


def export(order: Order, out: Path, *, check: bool = False) -> Exported:
    """Write the order's files into the new folder `out`, all or nothing.

    With `check` they are read back, by the target's own loader where it is diffusers', before the
    folder appears.

    Raises:
        ConfigError: there is no such target, or it does not take an option.
        AdapterError: the target cannot carry this adapter, or the files failed the check.
        StorageError: `out` exists already or cannot be written.
    """
    check_target(order.target)
    target: Target = import_target(TARGETS[order.target])()
    order.adapter.check_fits(order.backbone)
    refuse(order)
    with atomic_folder(out) as folder, torch.no_grad():
        found = target.write(order, folder)
        notes = (*found.notes, *_second_reader(order), *_places(order), *_own_way(order.adapter))
        written = replace(found, notes=notes)
        write_text(folder / "README.md", usage(order, written.notes))
        return replace(written, verdict=verify(order, folder, found.loss) if check else None)


def _second_reader(order: Order) -> list[str]:
    if order.backbone.family != "hunyuan" or not order.adapter.words:
        return []
    plain = Prompt(order.adapter.words[0].word, order.adapter.words).plain
    return [
        "CLIP reads the prompt, too, and knows no learned word: give the pipeline its vector of "
        f"the plain text, pooled_prompt_embeds=pipeline.encode_prompt('a {plain}')[1]."
    ]


def _places(order: Order) -> list[str]:
    if order.sampling.get("regions", "off") == "off" or len(order.adapter.words) < 2:
        return []
    return [
        "Here words keep to their own places (regions), which no other program does: subjects that "
        "are alike mix more easily there."
    ]


def _own_way(adapter: Adapter) -> list[str]:
    if renderer(adapter) is None:
        return []
    return [
        f"The method '{adapter.header.method}' draws its videos in a way of its own, which no "
        "other program follows; expect different ones there."
    ]
