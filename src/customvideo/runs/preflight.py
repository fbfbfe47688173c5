"""What `customvideo train --dry-run` says: all that a run will be and need, before it begins.

Nothing is fetched, trained or written. What is said is counted on a model without numbers
(`customvideo.runs.estimate`); what makes it fit a card is `customvideo.runs.fitting`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from customvideo.attention.site import describe
from customvideo.backbones.sizes import cached, missing_bytes, published
from customvideo.methods.base import TuningFree
from customvideo.runs.estimate import Case, Cost, Need, assemble, on_gpu
from customvideo.runs.fitting import CARDS, Sizing, card_bytes
from customvideo.runs.folder import Say, claim
from customvideo.runs.learning import TrainPlan, recipe_of

__all__ = ["Report", "lines", "measured_peak", "preflight", "report"]

_PYTHON = 1_500_000_000
"""Bytes of main memory that the program takes beside the model."""
_NUMBER = 4
_FILES_A_CHECKPOINT = 3
"""Times what is trained: the adapter, and AdamW's two moments."""
_PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "RTX A6000": 155e12,
    "V100": 125e12,
    "A10": 125e12,
    "L4": 121e12,
    "RTX 3090": 71e12,
    "T4": 65e12,
}
"""Multiplications and additions a second in 16 bits, dense, as the makers state them."""
_PLANNED_FOR = "A100"
_SHARES = {"gpu": 0.3, "cpu": 0.4}
"""Of the peak that a step reaches: on a CPU as measured on the toybox, on a GPU our guess."""


@dataclass(frozen=True)
class Report:
    """All that is known of a run before it begins; bytes unless its name says otherwise."""

    backbone: dict[str, Any]
    sites: str
    trained: dict[str, int]
    device: str
    memory: dict[str, Any]
    disk: dict[str, int]
    work: dict[str, Any]
    cards: list[dict[str, Any]]


def preflight(plan: TrainPlan, say: Say, *, as_json: bool = False) -> Report | None:
    """Say what the plan's run will be and need; None, said aloud, if it trains nothing.

    Raises:
        UserError: as training would for what can be known without loading anything.
    """
    claim(plan.out, plan.resume)
    recipe = recipe_of(plan, (lambda _: None) if as_json else say)
    device = plan.device
    if recipe.fit is not None:
        device = "cuda" if recipe.fit != "auto" else device
    case = assemble(recipe.model_copy(update={"fit": None}), device)
    if case.adapter is None:
        assert isinstance(case.method, TuningFree)
        say(f"Nothing is trained: {case.method.untrained()}.")
        return None
    found = report(Sizing(case), recipe.fit)
    if as_json:
        say(json.dumps(asdict(found), indent=2))
    else:
        for line in lines(found):
            say(line)
        if case.clips:
            say(
                f"Not counted: {recipe.clip_share:.0%} of the rows are clips, which take more time "
                "and memory than pictures; where it runs out, lower clip_frames."
            )
    return found


def report(sizing: Sizing, fit: str | int | None = None) -> Report:
    """Everything about the run of `sizing`, as it is, and on every size of card."""
    case = sizing.case
    as_it_is = next(sizing.choices())
    cost = sizing.cost(case.recipe)
    assert case.adapter is not None
    words = case.adapter.tokens.value.numel()
    return Report(
        backbone=_backbone(case),
        sites=describe(case.sites) if case.sites else "",
        trained={"words": words, "deltas": case.trained - words, "all": case.trained},
        device="gpu" if case.gpu else "cpu",
        memory=_memory(case, as_it_is.need),
        disk=_disk(case),
        work=_work(case, cost),
        cards=list(_cards(sizing, fit)) if case.gpu else [],
    )


def measured_peak(seconds: float = 0.3, clock: Callable[[], float] = time.perf_counter) -> float:
    """Multiplications and additions a second that this machine's CPU does in float32, at best.

    `clock` counts the seconds; that of the processor leaves out what others take of it.
    """
    side, best, began = 1024, 0.0, time.perf_counter()
    left, right = torch.randn(side, side), torch.randn(side, side)
    left @ right
    while time.perf_counter() - began < seconds:
        start = clock()
        left @ right
        best = max(best, 2 * side**3 / max(clock() - start, 1e-9))
    return best


def lines(found: Report) -> Iterator[str]:
    """The report for people."""
    backbone, memory, work = found.backbone, found.memory, found.work
    yield f"Backbone: {backbone['name']}, licence {backbone['licence'] or 'not stated'}"
    if backbone["non_commercial"]:
        yield "  Warning: its licence excludes commercial use."
    parts = ", ".join(f"{name} {_count(count)}" for name, count in backbone["numbers"].items())
    yield f"  {parts}; {backbone['weights']}"
    yield f"Trained: {_count(found.trained['all'])} numbers, {found.trained['words']:,} in words"
    yield "Attention control at" if found.sites else "No attention control"
    yield from (f"  {line}" for line in found.sites.splitlines())
    where = "GPU" if found.device == "gpu" else "CPU"
    yield f"Memory on the {where}: about {_size(memory['total'])}"
    yield (
        f"  weights {_size(memory['weights'])}, training {_size(memory['trained'])}, activations "
        f"{_size(memory['activations'])}, encoding {_size(memory['encoding'])}"
    )
    if found.device == "gpu":
        yield f"  and main memory while loading: about {_size(memory['host'])}"
    disk = found.disk
    yield (
        f"Disk: adapter {_size(disk['adapter'])}, checkpoints {_size(disk['checkpoints'])}, "
        f"class prior at most {_size(disk['prior'])}, download {_size(disk['download'])}"
    )
    yield (
        f"Time: about {_duration(work['seconds'])}, of {work['step_flops'] / 1e12:.3g} TFLOP a "
        f"step at {work['share']:.0%} of {work['peak'] / 1e12:.3g} TFLOP/s ({work['peak_of']})"
    )
    if work["prior_seconds"] >= 1:
        yield f"  and {_duration(work['prior_seconds'])} to draw the class prior, unless cached"
    for card in found.cards:
        yield _card_line(card)
    if found.device == "cpu" and work["seconds"] > 86400:
        yield "For a GPU, add --device cuda, or --fit and its memory in GB."


def _backbone(case: Case) -> dict[str, Any]:
    name, numbers = case.recipe.backbone, case.blank.numbers()
    known = published(name)
    licence = case.backbone.licence
    missing = missing_bytes(known, numbers) if known else {}
    if known is None:
        weights = "all here"
    elif missing:
        weights = f"to be fetched: {', '.join(missing)}, about {_size(sum(missing.values()))}"
    else:
        weights = f"in the cache, '{cached(known.hub)}'"
    return {
        "name": name,
        "licence": licence,
        "non_commercial": "-nc" in (licence or ""),
        "numbers": numbers,
        "key_value_numbers": _key_values(case),
        "weights": weights,
        "download": missing,
    }


def _key_values(case: Case) -> int:
    """How many numbers make the keys and values of text."""
    layers: list[Any] = [case.backbone.layer(path) for path in case.backbone.layers("text_kv")]
    return sum(layer.weight.numel() for layer in layers)


def _memory(case: Case, found: Need) -> dict[str, Any]:
    weights = sum(found.weights.values())
    return {
        "total": found.total,
        "parts": dict(found.weights),
        "weights": weights,
        "trained": found.trained,
        "activations": found.activations,
        "encoding": found.encoding,
        "host": weights + _PYTHON if case.gpu else found.total + _PYTHON,
    }


def _disk(case: Case) -> dict[str, int]:
    recipe, adapter = case.recipe, case.trained * _NUMBER
    kept = recipe.keep_checkpoints + (1 if recipe.held_out else 0)
    every = recipe.checkpoint_every or recipe.steps
    kept = min(kept, -(-recipe.steps // every))
    known = published(recipe.backbone)
    download = sum(missing_bytes(known, case.blank.numbers()).values()) if known else 0
    return {
        "adapter": adapter,
        "checkpoints": kept * _FILES_A_CHECKPOINT * adapter,
        "prior": _prior_numbers(case) * _NUMBER,
        "download": download,
    }


def _prior_numbers(case: Case) -> int:
    if case.prior is None or case.backbone.shipped_prior is not None:
        return 0
    plan, total = case.prior, 0
    clips = plan.clip_samples if plan.clips_every else 0
    for count, frames in ((plan.samples, 1), (clips, plan.clip_frames)):
        if count:
            channels, *grid = case.backbone.latent_shape(frames, *case.canvas)
            total += len(plan.categories) * count * channels * grid[0] * grid[1] * grid[2]
    return total


def _work(case: Case, cost: Cost) -> dict[str, Any]:
    peak, of = _peak(case)
    share = _SHARES["gpu" if case.gpu else "cpu"]
    recipe, plan = case.recipe, case.prior
    step = cost.flops * recipe.accumulation
    drawn = 0.0
    if plan is not None and case.backbone.shipped_prior is None:
        calls = len(plan.categories) * plan.samples * plan.sampling_steps * 2
        drawn = calls * cost.forward / cost.rows
    return {
        "step_flops": step,
        "seconds": step * recipe.steps / (peak * share),
        "prior_seconds": drawn / (peak * share),
        "peak": peak,
        "peak_of": of,
        "share": share,
    }


def _peak(case: Case) -> tuple[float, str]:
    """Multiplications and additions a second, and whose."""
    if not case.gpu:
        return measured_peak(), "measured on this CPU"
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        known = [peak for part, peak in _PEAKS.items() if part in name]
        if known:
            return known[0], name
    return _PEAKS[_PLANNED_FOR], f"that of an {_PLANNED_FOR}"


def _cards(sizing: Sizing, fit: str | int | None) -> Iterator[dict[str, Any]]:
    """What each size of card asks for; the wanted one is marked."""
    here = card_bytes("auto", "cuda") if on_gpu("auto") else None
    marked = next((card for card in CARDS if here and card_bytes(card, "") >= here), None)
    for card in CARDS:
        choice = sizing.best(card_bytes(card, ""))
        yield {
            "card": card,
            "fits": choice is not None,
            "changes": choice.changes if choice else {},
            "needs": (choice or sizing.smallest()).need.total,
            "chosen": card == (marked if fit in (None, "auto") else fit),
        }


def _card_line(card: Mapping[str, Any]) -> str:
    changes = ", ".join(f"{key}={value}" for key, value in card["changes"].items())
    if not card["fits"]:
        how = f"does not fit, needs {_size(card['needs'])} at the least"
    else:
        how = f"{changes or 'as it is'} ({_size(card['needs'])})"
    return f"{'>' if card['chosen'] else ' '} --fit {card['card']:>2}: {how}"


def _count(count: int) -> str:
    for name, size in (("B", 1e9), ("M", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count:,}"


def _size(size: float) -> str:
    return f"{size / 2**30:.1f} GB" if size >= 2**29 else f"{size / 2**20:.1f} MB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
