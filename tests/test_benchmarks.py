"""The speed benchmarks run on any family, and say what they measured; how fast is not tested."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from customvideo.backbones import sizes

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
QUICK = ("--pairs", "2", "--warm-up", "0", "--threads", "1")
SIDES = {
    "attention": ("with", "without"),
    "stock": ("ours", "stock"),
    "pooled": ("pooled", "anew"),
    "checkpointing": ("recomputed", "kept"),
    "cached": ("cached", "anew"),
    "prefix": ("shared", "apart"),
}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("models", "train_step", "generate", "whole_run"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def load(name: str) -> ModuleType:
        module = importlib.import_module(name)
        # A matrix product for a second is nothing that a test needs.
        models: Any = sys.modules["models"]
        monkeypatch.setattr(models, "device_peak", lambda *_: 1e10)
        return module

    return load


def run(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str
) -> list[dict[str, Any]]:
    monkeypatch.setattr(sys, "argv", [str(module.__file__), *QUICK, *flags])
    module.main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def check(report: dict[str, Any]) -> None:
    for side in SIDES[report["compare"]]:
        found = report[side]
        assert found["seconds"] > 0 and found["peak_bytes"] > 0 and found["flops"] > 0
        assert found["share_of_peak"] > 0
    low, high = report["quartiles"]
    assert report["pairs"] == 2 and low <= report["ratio"] <= high


@pytest.mark.parametrize("family", ["unet3d", "wan"])
def test_a_training_step_against_the_stock_loop(
    family: str,
    script: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = script("train_step")
    usual = module.default_recipe
    small = {"canvas": (64, 96), "batch_size": 1}
    monkeypatch.setattr(
        module, "default_recipe", lambda **keys: usual(**keys).model_copy(update=small)
    )
    flags = [part for name in ("attention", "stock", "pooled", "checkpointing") for part in
             ("--compare", name)]  # fmt: skip
    found = run(module, monkeypatch, capsys, "--size", "tiny", "--backbone", family, *flags)
    assert [one["compare"] for one in found] == ["attention", "stock", "pooled", "checkpointing"]
    for one in found:
        check(one)
        assert one["model"] == f"{family}, tiny, random" and one["rows"] == 3
    attention, stock, pooled, recomputed = found
    assert attention["with"]["flops"] > attention["without"]["flops"]
    # The stock loop encodes its pictures in every step, and so does ours without a pool.
    assert stock["stock"]["flops"] > 1.2 * stock["ours"]["flops"]
    assert pooled["anew"]["flops"] > pooled["pooled"]["flops"]
    assert recomputed["recomputed"]["flops"] > recomputed["kept"]["flops"]
    assert recomputed["recomputed"]["peak_bytes"] < recomputed["kept"]["peak_bytes"]


@pytest.mark.parametrize(
    ("family", "compared"),
    [("unet3d", ("stock", "cached", "prefix")), ("wan", ("stock", "cached"))],
)
def test_a_video_against_the_stock_pipeline(
    family: str,
    compared: tuple[str, ...],
    script: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--canvas", "64", "96", "--frames", "5", "--steps", "2"]
    flags += [part for name in compared for part in ("--compare", name)]
    found = run(
        script("generate"), monkeypatch, capsys, "--size", "tiny", "--backbone", family, *flags
    )
    assert [one["compare"] for one in found] == list(compared)
    for one in found:
        check(one)
    assert found[0]["clip"] == [5, 64, 96]
    assert found[0]["max_abs_difference"] <= 1e-4 and found[0]["passed"]
    assert found[1]["cached"]["flops"] < found[1]["anew"]["flops"]
    if "prefix" in compared:
        assert found[2]["shared"]["flops"] < found[2]["apart"]["flops"]


def test_a_model_of_the_published_size_is_drawn_not_read(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way of `--size true`, on configs made small."""
    model = sizes.PUBLISHED["wan-1.3b"]
    less = {
        "transformer": {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 2,
            "ffn_dim": 16,
            "text_dim": 16,
            "freq_dim": 16,
        },
        "vae": {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
        "text_encoder": {
            "vocab_size": 64,
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 16,
            "num_layers": 1,
            "num_heads": 2,
        },
    }
    parts = {name: replace(part, config=less[name]) for name, part in model.parts.items()}
    monkeypatch.setitem(sizes.PUBLISHED, "wan-1.3b", replace(model, parts=parts))
    flags = ("--canvas", "64", "96", "--frames", "5", "--steps", "2")
    found = run(
        script("generate"), monkeypatch, capsys, "--size", "true", "--backbone", "wan", *flags
    )
    check(found[0])
    assert (found[0]["model"], found[0]["dtype"]) == ("wan, true, random", "bfloat16")


def test_a_whole_customization_is_timed_by_its_phases(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("whole_run")
    quick = {
        "canvas": "[64, 96]",
        "pool": "2",
        "held_out": "1",
        "method_options.prior_samples": "1",
    }
    quick |= {"method_options.prior_sampling_steps": "1", "sampling.num_steps": "1"}
    quick |= {"sampling.frames": "5", "sampling.height": "64", "sampling.width": "96"}
    flags = ["--size", "tiny", "--backbone", "wan", "--steps", "3", "--set", "base=fp8"]
    flags += [part for key, value in quick.items() for part in ("--set", f"{key}={value}")]
    monkeypatch.setattr(sys, "argv", [str(module.__file__), "--threads", "1", *flags])
    module.main()
    (found,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert found["steps"] == 3 and found["video"] == [1, 5] and found["peak_bytes"] > 0
    phases = [found[f"{name}_seconds"] for name in ("before", "steps", "video")]
    assert min(phases) > 0
    assert found["whole_seconds"] == pytest.approx(phases[0] + phases[1], abs=0.01)
    assert found["steps_seconds"] >= found["first_step_seconds"] + found["step_seconds"]
