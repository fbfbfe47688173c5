"""The demo, whole: quickly on the tiny random model, then on the toybox itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo import demo
from customvideo.adapters.adapter import Adapter
from customvideo.config import Recipe, apply_sets, default_recipe
from customvideo.errors import ConfigError
from customvideo.evaluation.encoders import ClipEncoder, DinoEncoder
from customvideo.evaluation.evaluate import Encoders
from customvideo.runs.scoring import finder_for
from customvideo.subjects.prompt import Prompt
from customvideo.toybox.customstudio import studio
from customvideo.training.interrupt import Interrupted
from customvideo.training.progress import StepReport
from customvideo.training.session import Session
from customvideo.video import Video
from tests.evaluation.conftest import tiny_clip, tiny_dino  # noqa: F401
from tests.evaluation.finders import HalvesFinder
from tests.surroundings import QUICK, run_cli

# The tiny model reads 24 tokens only; that a prompt is longer is said, and fine here.
pytestmark = pytest.mark.filterwarnings("ignore::customvideo.generation.CustomVideoWarning")


@pytest.fixture(scope="module")
def recipe(tiny_zeroscope: Path) -> Recipe:
    keys = [f"{key}={value}" for key, value in QUICK.items()]
    return apply_sets(default_recipe(backbone=str(tiny_zeroscope)), keys)


@pytest.fixture(scope="module")
def encoders(tiny_clip: Path, tiny_dino: Path) -> Encoders:  # noqa: F811
    return Encoders(ClipEncoder(tiny_clip), DinoEncoder(tiny_dino))


@pytest.fixture(scope="module", autouse=True)
def finder() -> Iterator[None]:
    """The tiny model's videos show nothing to be found: their halves pass for the two toys."""
    halves = HalvesFinder(*(studio().subject(name).category for name in demo.NAMES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            demo,
            "finder_for",
            lambda backbone: finder_for(backbone) if backbone.name == "toybox" else halves,
        )
        yield


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, encoders: Encoders
) -> tuple[Path, list[str]]:
    """A demo's folder, and what it said; read-only by agreement."""
    out, lines = tmp_path_factory.mktemp("demo") / "demo", list[str]()
    page = demo.run(out, say=lines.append, recipe=recipe, encoders=encoders)
    assert page == out / "report.html"
    return out, lines


def test_it_writes_what_others_rely_on(finished: tuple[Path, list[str]]) -> None:
    check_demo(finished[0])


def check_demo(out: Path) -> None:
    """The demo's contract."""
    for name in demo.NAMES:
        photos = sorted((out / "subjects" / name).glob("*.png"))
        assert len(photos) == 5
        with Image.open(photos[0]) as photo:
            assert photo.size == (384, 240)
        assert not (out / "subjects" / name / "masks").exists(), "masks are to be made"
    adapter = Adapter.load(out / "adapter.safetensors")
    assert [word.name for word in adapter.words] == list(demo.NAMES)
    before = sorted(path.name for path in (out / "videos" / "before").glob("*.mp4"))
    after = sorted(path.name for path in (out / "videos" / "after").glob("*.mp4"))
    assert before == after and len(before) == len(demo.SCENES) >= 3
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    for side in ("before", "after"):
        assert {"clip_t", "clip_i", "dino_i", "t_cons"} <= metrics[side].keys()
        rows = metrics[side]["rows"]
        assert len(rows) == len(demo.SCENES) * len(demo.NAMES)
        assert {row["subject"] for row in rows} == set(demo.NAMES)
        assert all(np.isfinite(metrics[side][name]) for name in ("clip_t", "clip_i", "dino_i"))


def test_before_and_after_are_other_videos(finished: tuple[Path, list[str]]) -> None:
    videos = finished[0] / "videos"
    for place in demo.SCENES:
        sides = [Video.load(videos / side / f"{place}.mp4") for side in ("before", "after")]
        assert sides[0].frames.shape == sides[1].frames.shape
        assert not np.array_equal(sides[0].frames, sides[1].frames)


def test_the_report_stands_alone_and_shows_everything(finished: tuple[Path, list[str]]) -> None:
    page = (finished[0] / "report.html").read_text(encoding="utf-8")
    photos = 2 * 5 * len(demo.NAMES)
    strips = len(demo.SCENES) * len(demo.NAMES)
    assert page.count("data:image/jpeg") >= photos + 6 + strips
    assert page.count("data:video/mp4") == len(demo.SCENES) * (2 + len(demo.NAMES))
    assert "<svg" in page and "CLIP-T" in page and "DINO-I" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


def test_it_says_where_it_is_and_how_long_it_takes(finished: tuple[Path, list[str]]) -> None:
    stages = [line for line in finished[1] if line.startswith("[")]
    assert [line[:5] for line in stages] == [f"[{index}/6]" for index in range(1, 7)]
    assert all(line.endswith(" left)") for line in stages)
    assert finished[1][-1].endswith("report.html")


def test_it_can_be_run_again(
    finished: tuple[Path, list[str]], recipe: Recipe, encoders: Encoders
) -> None:
    out = finished[0]
    kept = {name: (out / name).read_bytes() for name in ("adapter.safetensors", "metrics.json")}
    demo.run(out, say=lambda _: None, recipe=recipe, encoders=encoders)
    assert {name: (out / name).read_bytes() for name in kept} == kept


def test_scores_look_at_each_toy_alone_and_at_what_is_possible(
    finished: tuple[Path, list[str]],
) -> None:
    metrics = json.loads((finished[0] / demo.METRICS).read_text(encoding="utf-8"))
    for side in ("before", "after", "ceiling"):
        names = {"dino_i_crop", "clip_i_crop", "co_occurrence", "bleed", "rank1"}
        assert names <= metrics[side].keys()
        assert metrics[side]["co_occurrence"] == 1
    assert "dino_i_gain" not in metrics["before"]
    before, after, ceiling = (
        metrics[side]["dino_i_crop"] for side in ("before", "after", "ceiling")
    )
    # Whether a random model leaves any way to go is chance.
    expected = (after - before) / (ceiling - before) if ceiling - before > 1e-6 else None
    gain = metrics["after"]["dino_i_gain"]
    assert gain == (expected if expected is None else pytest.approx(expected))
    page = (finished[0] / "report.html").read_text(encoding="utf-8")
    assert "All there" in page and "Mixed up" in page and "Told apart" in page


def test_true_footage_shows_the_toys_in_every_scene() -> None:
    film = Video(np.zeros((3, 32, 48, 3), np.uint8), fps=5)
    shots = [demo.Shot(place, Prompt("a toy"), film, film, {}) for place in demo.SCENES]
    first, again, other = (demo._true_footage(shots, seed) for seed in (0, 0, 1))
    assert len(first) == len(demo.SCENES)
    for one, same, different in zip(first, again, other, strict=True):
        assert one.frames.shape == film.frames.shape and one.fps == film.fps
        assert np.array_equal(one.frames, same.frames)
        assert not np.array_equal(one.frames, different.frames)
        assert not np.array_equal(one.frames[0], one.frames[-1])


def test_stopped_while_learning_it_goes_on(
    finished: tuple[Path, list[str]],
    recipe: Recipe,
    encoders: Encoders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[int] = []
    train_step = Session.train_step

    def counted(session: Session) -> StepReport:
        if session.step == 2 and 3 not in steps:
            steps.append(3)
            raise KeyboardInterrupt
        report = train_step(session)
        steps.append(report.step)
        return report

    monkeypatch.setattr(Session, "train_step", counted)
    out = tmp_path / "demo"
    with pytest.raises(Interrupted, match="after step 2 of 4; run the demo again to go on"):
        demo.run(out, say=lambda _: None, recipe=recipe, encoders=encoders)
    demo.run(out, say=lambda _: None, recipe=recipe, encoders=encoders)
    assert steps == [1, 2, 3, 3, 4]
    name = "adapter.safetensors"
    assert (out / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "subjects").mkdir()
    with pytest.raises(ConfigError, match="no demo"):
        demo.run(tmp_path, say=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["subjects"]


def test_through_the_command_line_it_is_as_polite(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = run_cli("demo", "--out", tmp_path)
    assert result.exit_code == 2
    assert str(tmp_path) in result.stderr and "another --out" in result.stderr


def test_on_the_toybox_with_a_short_training(tmp_path: Path) -> None:
    """The real model and judges, so that words, nouns and sizes are seen to fit together."""
    recipe = apply_sets(default_recipe(), ["steps=2", "pool=4", "num_steps=2", "held_out=0"])
    demo.run(tmp_path / "demo", say=lambda _: None, recipe=recipe)
    check_demo(tmp_path / "demo")
