"""Adapters to files of other programs and back: what `customvideo export` and `import` do.

What a target's files hold is `customvideo.exports`; here an adapter finds its backbone and a
result is said in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from customvideo.adapters.adapter import Adapter
from customvideo.backbones.base import load_backbone
from customvideo.errors import ConfigError
from customvideo.exports.base import export as write
from customvideo.exports.importing import import_adapter
from customvideo.exports.order import DTYPES, Exported, Order
from customvideo.exports.targets import check_target
from customvideo.runs.folder import ADAPTER, Say, require_new_file
from customvideo.runs.making import backbone_for, sampling_for
from customvideo.settings import suggest

__all__ = ["ExportPlan", "ImportPlan", "export", "import_file"]


@dataclass(frozen=True)
class ExportPlan:
    """An adapter file and what it shall become; `dtype` is a key of `DTYPES`, no `out` is a folder
    beside the adapter."""

    adapter: Path
    target: str
    out: Path | None = None
    backbone: str | None = None
    rank: int | None = None
    dtype: str = "fp32"
    verify: bool = False
    words_only: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class ImportPlan:
    """A file of another trainer, the model it was trained on, and where the adapter goes."""

    file: Path
    backbone: str
    out: Path
    device: str = "cpu"


def export(plan: ExportPlan, say: Say) -> Path:
    """Write the plan's files and return their folder.

    Raises:
        UserError: the target cannot carry the adapter, or a setting, file or place is wrong.
    """
    check_target(plan.target)
    if plan.dtype not in DTYPES:
        raise ConfigError(f"There is no type '{plan.dtype}'{suggest(plan.dtype, DTYPES)}")
    adapter = Adapter.load(plan.adapter)
    backbone = backbone_for(plan.adapter, adapter, plan.backbone, plan.device)
    named = "export" if plan.adapter.name == ADAPTER else plan.adapter.stem
    out = plan.out or plan.adapter.parent / f"{named}-{plan.target}"
    order = Order(
        adapter,
        backbone,
        plan.target,
        rank=plan.rank,
        dtype=DTYPES[plan.dtype],
        words_only=plan.words_only,
        sampling=sampling_for(plan.adapter, backbone, {}).model_dump(mode="json"),
    )
    _report(write(order, out, check=plan.verify), out, say)
    return out


def import_file(plan: ImportPlan, say: Say) -> Path:
    """Make an adapter without words of the plan's file and return its own.

    Raises:
        UserError: the file is not understood whole, or the backbone or place cannot be used, or
            there is a file already.
    """
    require_new_file(plan.out)
    backbone = load_backbone(plan.backbone, plan.device)
    adapter = import_adapter(plan.file, backbone)
    adapter.save(plan.out)
    say(f"Wrote '{plan.out}': {len(adapter.deltas)} layers of {backbone.name}, no words.")
    return plan.out


def _report(found: Exported, out: Path, say: Say) -> None:
    if any(found.losses.values()):
        worst = max(found.losses, key=lambda path: found.losses[path])
        for path, loss in found.losses.items():
            say(f"  {path}: {_share(loss)} lost, {_share(1 - loss**2)} of the energy kept")
        say(
            f"Lower rank loses {_share(found.loss)} of the deltas' norm and keeps "
            f"{_share(1 - found.loss**2)} of their energy; most is lost at {worst}."
        )
    if verdict := found.verdict:
        say(f"Every one of {verdict.keys} tensors has its place; error {verdict.error:.2g}.")
        if verdict.clip is not None:
            say(
                f"A short clip by diffusers' own loader differs by {verdict.clip:.2g} of 1 at most "
                f"from what the files hold; by {verdict.lost:.2g} they differ from the adapter, "
                f"which moves pixels by {verdict.moved:.2g}."
            )
    for note in found.notes:
        say(f"Note: {note}")
    say(f"Wrote '{out}'; README.md in it says how to load it.")


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"
