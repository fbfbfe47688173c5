"""Which checkpoint, and how much of it: the rules, and a run they are applied to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from customvideo.errors import ConfigError
from customvideo.runs.recommending import Trial, candidates, recommend
from tests.evaluation.conftest import tiny_clip, tiny_dino  # noqa: F401
from tests.surroundings import run_cli, train, write_pair


def trial(step: int | None, strength: float, likeness: float, text: float, motion: float) -> Trial:
    scores = {"headline": likeness, "clip_t": text, "motion": motion, "dino_i": 0.5}
    return Trial(Path(f"{step}.safetensors"), step, strength, scores)


def test_the_likest_wins_among_those_that_follow_the_text_and_move() -> None:
    trials = [
        trial(100, 1.0, 0.60, 0.30, 1.0),
        trial(200, 1.0, 0.80, 0.20, 1.0),
        trial(300, 1.0, 0.90, 0.31, 0.1),
        trial(None, 1.0, 0.70, 0.29, 0.8),
    ]
    verdict = recommend(trials)
    assert verdict.best is trials[3]
    said = " ".join(verdict.reasons)
    assert "step 200 at strength 1 follows the text less (clip_t 0.200, best 0.310)" in said
    assert "step 300 at strength 1 moves less (motion 0.100, most 1.000)" in said
    assert verdict.reasons[0].startswith("the final adapter at strength 1 looks most like")


def test_of_equals_the_weaker_and_the_earlier_is_taken() -> None:
    trials = [trial(step, force, 0.8, 0.3, 1.0) for step in (200, 100) for force in (1.0, 0.6)]
    assert recommend(trials).best is trials[3]
    assert "leaves more of the base model" in recommend(trials).reasons[0]


def test_without_a_finder_whole_frames_decide() -> None:
    plain = [
        Trial(Path("a"), 1, 1.0, {"headline": None, "dino_i": 0.2, "clip_t": 0.3}),
        Trial(Path("b"), 2, 1.0, {"headline": None, "dino_i": 0.4, "clip_t": 0.3}),
    ]
    assert recommend(plain).best is plain[1] and "dino_i 0.400" in recommend(plain).reasons[0]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no adapter and no whole checkpoint"):
        candidates(tmp_path)


def test_a_run_is_looked_at_checkpoint_by_checkpoint(
    tmp_path: Path,
    tiny_zeroscope: Path,
    tiny_clip: Path,  # noqa: F811
    tiny_dino: Path,  # noqa: F811
) -> None:
    pair = write_pair(tmp_path)
    out = tmp_path / "run"
    assert train(out, pair, tiny_zeroscope).exit_code == 0
    judges = ["--clip", f"clip={tiny_clip}", "--dino", f"dino={tiny_dino}"]
    asked = ["--recommend", "--strength", "1", "--strength", "0.5", "--prompt", "a <tom> cat"]
    ended = run_cli(
        "evaluate", "--adapter", out, *pair, *judges, *asked, "--out", tmp_path / "best.json"
    )
    assert ended.exit_code == 0, ended.output
    told = json.loads((tmp_path / "best.json").read_text())
    # The last checkpoint is the final adapter, and is not drawn twice.
    assert [(one["step"], one["strength"]) for one in told["trials"]] == [
        (2, 1.0),
        (2, 0.5),
        (None, 1.0),
        (None, 0.5),
    ]
    assert "Recommended: " in ended.output and Path(told["adapter"]).is_file()
    assert told["reasons"][0].split(" looks")[0] in ended.output
