"""The demo, whole: quickly on the tiny random model, then on the toybox itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from customvideo import demo
from customvideo.adapters.adapter import Adapter
from customvideo.config import Recipe, apply_sets, default_recipe
from customvideo.demo import play, stage
from customvideo.demo.acts import ACTS, Act
from customvideo.demo.countdown import Countdown
from customvideo.errors import BackboneError, ConfigError
from customvideo.evaluation.encoders import ClipEncoder, DinoEncoder
from customvideo.evaluation.evaluate import Encoders
from customvideo.evaluation.instances import Instance
from customvideo.runs.learning import Job
from customvideo.runs.scoring import finder_for
from customvideo.subjects.grabcut import GrabCut
from customvideo.subjects.prompt import Prompt
from customvideo.training.interrupt import Interrupted
from customvideo.training.progress import StepReport
from customvideo.training.session import Session
from customvideo.video import Video
from tests.evaluation.conftest import tiny_clip, tiny_dino  # noqa: F401
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


class Halves:
    """The tiny model's videos show nothing to be found: their halves pass for the two toys."""

    def find(self, frames: np.ndarray) -> list[list[Instance]]:
        left = np.zeros(frames.shape[1:3], np.bool_)
        left[:, : left.shape[1] // 2] = True
        return [[Instance(left, "", 0.9), Instance(~left, "", 0.8)] for _ in frames]


@pytest.fixture(scope="module", autouse=True)
def finder() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            play,
            "finder_for",
            lambda backbone, device: (
                finder_for(backbone) if backbone.name == "toybox" else Halves()
            ),
        )
        yield


@pytest.fixture(scope="module", autouse=True)
def masks_once() -> Iterator[None]:
    """The same photos are segmented by every demo here; half of its time would go there."""
    segment, known = GrabCut.__call__, dict[bytes, np.ndarray]()

    def remembered(self: GrabCut, image: np.ndarray, category: str) -> np.ndarray:
        key = image.tobytes()
        if key not in known:
            known[key] = segment(self, image, category)
        return known[key].copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GrabCut, "__call__", remembered)
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
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert [(act.key, act.names, len(act.scenes)) for act in ACTS] == [
        ("", ("ida", "rex"), 3),
        ("same_category", ("yuri", "xena"), 2),
    ]
    check_act(ACTS[0], out, metrics)
    check_act(ACTS[1], out / "same_category", metrics["same_category"])
    assert len(set(ACTS[1].categories)) == 1 < len(set(ACTS[0].categories))


def check_act(act: Act, out: Path, metrics: dict[str, Any]) -> None:
    for name in act.names:
        photos = sorted((out / "subjects" / name).glob("*.png"))
        assert len(photos) == 5
        with Image.open(photos[0]) as photo:
            assert photo.size == (384, 240)
        assert not (out / "subjects" / name / "masks").exists(), "masks are to be made"
    adapter = Adapter.load(out / "adapter.safetensors")
    assert [word.name for word in adapter.words] == list(act.names)
    assert [word.category for word in adapter.words] == act.categories
    before = sorted(path.name for path in (out / "videos" / "before").glob("*.mp4"))
    after = sorted(path.name for path in (out / "videos" / "after").glob("*.mp4"))
    assert before == after == sorted(f"{scene.place}.mp4" for scene in act.scenes)
    for side in ("before", "after"):
        assert {"clip_t", "clip_i", "dino_i", "t_cons"} <= metrics[side].keys()
        rows = metrics[side]["rows"]
        assert len(rows) == len(act.scenes) * len(act.names)
        assert {row["subject"] for row in rows} == set(act.names)
        assert all(np.isfinite(metrics[side][name]) for name in ("clip_t", "clip_i", "dino_i"))


def test_before_and_after_are_other_videos(finished: tuple[Path, list[str]]) -> None:
    for act in ACTS:
        videos = act.folder(finished[0]) / "videos"
        for scene in act.scenes:
            name = f"{scene.place}.mp4"
            sides = [Video.load(videos / side / name) for side in ("before", "after")]
            assert sides[0].frames.shape == sides[1].frames.shape
            assert not np.array_equal(sides[0].frames, sides[1].frames)


def test_the_report_stands_alone_and_shows_everything(finished: tuple[Path, list[str]]) -> None:
    page = (finished[0] / "report.html").read_text(encoding="utf-8")
    pictures = [2 * 5 * len(act.names) + 6 + len(act.scenes) * len(act.names) for act in ACTS]
    assert page.count("data:image/jpeg") == sum(pictures)
    films = [len(act.scenes) * (2 + len(act.names)) for act in ACTS]
    assert page.count("data:video/mp4") == sum(films)
    assert 'id="part2-result"' in page and "Two of one category" in page
    # Whoever reads a score learns whose it is.
    assert "ClipEncoder for CLIP, DinoEncoder for DINO" in page
    assert f"customvideo demo --out {finished[0]} --seed 0" in page
    assert "<svg" in page and "CLIP-T" in page and "DINO-I" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")


def test_it_says_where_it_is_and_how_long_it_takes(finished: tuple[Path, list[str]]) -> None:
    stages = [line for line in finished[1] if line.startswith("[")]
    assert [line.partition(" ")[0] for line in stages] == [f"[{i}/11]" for i in range(1, 12)]
    assert all(line.endswith(" left)") for line in stages)
    assert "Photographing Ida and Rex" in stages[0]
    assert "the numbers under the videos say" in finished[1][-1]
    assert finished[1][-1].endswith("report.html")


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The last subject of every act that is learned from now on."""
    fit, seen = play.fit, list[str]()

    def counted(job: Job, folder: Path, **options: Any) -> Adapter:
        seen.append(job.subjects[-1].name)
        return fit(job, folder, **options)

    monkeypatch.setattr(play, "fit", counted)
    return seen


def test_run_again_when_finished_it_is_made_anew(
    finished: tuple[Path, list[str]], recipe: Recipe, encoders: Encoders, fitted: list[str]
) -> None:
    out = finished[0]
    kept = {name: (out / name).read_bytes() for name in ("adapter.safetensors", "metrics.json")}
    demo.run(out, say=lambda _: None, recipe=recipe, encoders=encoders)
    assert {name: (out / name).read_bytes() for name in kept} == kept
    assert fitted == ["rex", "xena"]


def test_scores_look_at_each_toy_alone_and_at_what_is_possible(
    finished: tuple[Path, list[str]],
) -> None:
    every = json.loads((finished[0] / demo.METRICS).read_text(encoding="utf-8"))
    page = (finished[0] / "report.html").read_text(encoding="utf-8")
    assert "All there" in page and "Mixed up" in page and "Told apart" in page
    for metrics in (every, every["same_category"]):
        check_gain(metrics)


def check_gain(metrics: dict[str, Any]) -> None:
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


def test_true_footage_shows_the_toys_in_every_scene() -> None:
    film = Video(np.zeros((3, 32, 48, 3), np.uint8), fps=5)
    act = ACTS[0]
    shots = [stage.Shot(scene, Prompt("a toy"), film, film, {}) for scene in act.scenes]
    first, again, other = (stage._true_footage(act, shots, seed) for seed in (0, 0, 1))
    assert len(first) == len(act.scenes)
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
    assert steps == [1, 2, 3, 3, 4, 1, 2, 3, 4]
    name = "adapter.safetensors"
    assert (out / name).read_bytes() == (finished[0] / name).read_bytes()


def test_stopped_later_it_keeps_what_it_learned(
    finished: tuple[Path, list[str]],
    recipe: Recipe,
    encoders: Encoders,
    fitted: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out, lines = tmp_path / "demo", list[str]()
    for room, stopped, learned in ((stage, "shoot", ["rex"]), (play, "write_page", ["xena"])):
        with monkeypatch.context() as patch:
            patch.setattr(room, stopped, stop)
            with pytest.raises(KeyboardInterrupt):
                demo.run(out, say=lambda _: None, recipe=recipe, encoders=encoders)
        assert fitted == learned
        fitted.clear()
    demo.run(out, say=lines.append, recipe=recipe, encoders=encoders)
    assert not fitted
    assert sum("Keeping what was learned" in line for line in lines) == 2
    first, second = ((folder / demo.METRICS).read_bytes() for folder in (finished[0], out))
    assert first == second


def test_without_the_device_it_leaves_nothing(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BackboneError, match="'cuda' is not available"):
        demo.run(tmp_path / "demo", say=lambda _: None, recipe=recipe, device="cuda")
    assert not list(tmp_path.iterdir())


def test_the_estimate_trusts_its_table_until_a_fair_part_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, lines = 0.0, list[str]()
    monkeypatch.setattr("time.monotonic", lambda: now)
    countdown = Countdown([("a", 5), ("kept", 0), ("b", 45), ("c", 50)], lines.append)
    for seconds in (1, 0, 89):
        with countdown.next():
            now += seconds
    with countdown.next():
        pass
    assert [line.rpartition("about ")[2] for line in lines] == [
        "1 min 40 s left)",
        "1 min 35 s left)",
        "1 min 35 s left)",
        "1 min 30 s left)",
    ]


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
