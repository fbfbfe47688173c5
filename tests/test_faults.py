"""A few of the kills of `benchmarks/faults.py`; `docs/reliability.md` has figures of many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_killed_runs_go_on_and_end_as_if_nothing_had_been(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    script = ROOT / "benchmarks" / "faults.py"
    flags = ["--kills", "6", "--only", "export", "--only", "training", "--out", str(report)]
    ended = subprocess.run(
        [sys.executable, str(script), *flags],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(report.read_text())
    kills = sum(sum(told[work]["kills"].values()) for work in ("training", "export"))
    assert kills == 6 and told["faults"] == []
    assert told["training"]["most steps lost"] <= 2
