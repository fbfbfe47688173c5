"""Several processes training one adapter: the same run as one process with as many rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from customvideo.errors import ConfigError
from customvideo.runs import together
from customvideo.training.ranks import Ranks
from tests.surroundings import run_cli, sets, train, write_pair
from tests.tiny_wan import build_tiny_wan

HOME = Path(__file__).parents[2]
TOLERANCE = 1e-5
"""Relative: sums of the same float32 numbers in another order."""
FAST = {"steps": "3", "learning_rate": "0.01", "word_learning_rate": "0.01", "held_out": "1"}


def alone(tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line in processes of its own, which the tests' one cannot be part of."""
    path = os.pathsep.join([str(HOME / "src"), str(HOME)])
    return subprocess.run(
        [sys.executable, "-m", "customvideo", *map(str, arguments)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory, tiny_zeroscope: Path
) -> tuple[Path, list[str], str]:
    """A run of two processes with a row each; its folder, how it was asked for, what it said."""
    folder = tmp_path_factory.mktemp("two")
    asked = [*write_pair(folder), "--backbone", str(tiny_zeroscope), "--device", "cpu"]
    out = folder / "out"
    done = alone(
        folder, "train", *asked, "--out", out, *sets(**FAST, batch_size="1"), "--processes", "2"
    )
    assert done.returncode == 0, done.stderr
    return out, asked, done.stdout + done.stderr


def test_two_processes_are_one_with_twice_the_rows(
    two: tuple[Path, list[str], str], tmp_path: Path
) -> None:
    out, asked, said = two
    # Launchers have been seen to start one process silently where two were asked for.
    assert "training in 2 processes, 2 rows a step" in said
    one = run_cli("train", *asked, "--out", tmp_path / "one", *sets(**FAST, batch_size="2"))
    assert one.exit_code == 0, one.output
    there, here = (
        load_file(out / "adapter.safetensors"),
        load_file(tmp_path / "one/adapter.safetensors"),
    )
    assert there.keys() == here.keys()
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=TOLERANCE, atol=TOLERANCE)
    moved = max(float(value.abs().max()) for name, value in here.items() if "delta" in name)
    assert moved > 100 * TOLERANCE, "nothing was learned that could differ"
    for ours, theirs in zip(*(_losses(run) for run in (out, tmp_path / "one")), strict=True):
        assert ours == pytest.approx(theirs, rel=TOLERANCE)


def test_one_process_writes_and_the_folder_looks_as_ever(
    two: tuple[Path, list[str], str], tmp_path: Path
) -> None:
    out, _, said = two
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert {"adapter.safetensors", "checkpoints", "losses.jsonl", "report.html"} <= names
    assert said.count("Wrote '") == 1


def test_another_number_of_processes_does_not_resume(two: tuple[Path, list[str], str]) -> None:
    """It would train other rows than the ones left."""
    out, asked, _ = two
    before = (out / "adapter.safetensors").read_bytes()
    more = sets(**FAST | {"steps": "5"}, batch_size="1")
    refused = run_cli("train", *asked, "--out", out, *more, "--resume")
    assert refused.exit_code == 2 and "processes was 2" in refused.output
    assert (out / "adapter.safetensors").read_bytes() == before


def test_processes_that_do_not_find_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were started and 1 found"):
        Ranks.found()


def test_an_error_is_said_once_and_ends_all(tmp_path: Path, tiny_zeroscope: Path) -> None:
    pair = write_pair(tmp_path)
    ended = alone(
        tmp_path,
        *(
            "train",
            *pair,
            "--backbone",
            tiny_zeroscope,
            "--out",
            tmp_path / "out",
            "--device",
            "cpu",
        ),
        *sets(method="nobody"),
        *("--processes", "2"),
    )
    assert ended.returncode == 2 and ended.stderr.count("nobody") == 1, ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="ends processes by signals")
def test_one_that_is_killed_ends_all_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nif [ $RANK = 1 ]; then kill -9 $$; fi\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(together.sys, "executable", str(program))
    monkeypatch.setattr(together, "_GRACE", 0.1)
    assert together.start_together(2, ["train"]) == 128 + 9
    assert "Process 2 of 2 was ended by signal 9" in capfd.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="ends processes by signals")
def test_a_request_to_stop_is_handed_on_once(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(
        "#!/bin/sh\ntrap 'echo asked >> said; exit 130' INT TERM\n"
        "touch ready-$RANK\nwhile true; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    code = (
        # Whatever started the tests may ignore it, and children would with it.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from customvideo.runs import together; "
        f"together.sys.executable = {str(program)!r}; "
        "raise SystemExit(together.start_together(2, ['train']))"
    )
    path = os.pathsep.join([str(HOME / "src"), str(HOME)])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    )
    try:
        while len(list(tmp_path.glob("ready-*"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        # As a terminal does it: to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "said").read_text() == "asked\n" * 2


def test_a_base_model_that_is_shared_out_trains_the_same(tmp_path: Path) -> None:
    """Asserted block by block in the program: each parameter is a DTensor then."""
    wan = build_tiny_wan(tmp_path / "wan")
    size = {"canvas": "[32, 32]", "sampling.height": "32", "sampling.width": "32"}
    asked = [*write_pair(tmp_path), "--backbone", str(wan), "--device", "cpu"]
    quick = FAST | size | {"least_cells": "0", "sampling.frames": "5"}
    shared = sets(**quick, batch_size="1", shard="true")
    there = alone(tmp_path, "train", *asked, "--out", "two", *shared, "--processes", "2")
    assert there.returncode == 0, there.stderr
    assert "blocks are shared out over 2 processes" in there.stderr
    here = alone(tmp_path, "train", *asked, "--out", "one", *sets(**quick, batch_size="2"))
    assert here.returncode == 0, here.stderr
    one, two = (load_file(tmp_path / run / "adapter.safetensors") for run in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=TOLERANCE, atol=TOLERANCE)


def test_one_process_has_nobody_to_share_with(tmp_path: Path, tiny_zeroscope: Path) -> None:
    pair = write_pair(tmp_path)
    refused = train(tmp_path / "out", pair, tiny_zeroscope, "--set", "shard=true")
    assert refused.exit_code == 2 and "nobody to share the base model with" in refused.output


def _losses(run: Path) -> list[float]:
    lines = (run / "losses.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]
