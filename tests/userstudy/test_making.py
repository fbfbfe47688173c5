"""A study's folder: blind names, what is compared, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from customvideo.errors import UserError
from customvideo.userstudy import sources
from customvideo.userstudy.commands import new
from customvideo.userstudy.items import MEDIA, read_items
from customvideo.userstudy.plan import read_plan
from customvideo.userstudy.sources import from_benchmark
from customvideo.video import Video
from tests.surroundings import run_cli
from tests.userstudy.studies import make_study


def film(path: Path, level: int = 90) -> Path:
    frames = np.full((3, 32, 48, 3), level, np.uint8)
    frames[:, 8:16, 8:16] = [[[[10]]], [[[120]]], [[[240]]]]
    return Video(frames, 4).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for method in ("a", "b"):
        for name in ("one", "two", "three"):
            film(tmp_path / method / f"{name}.mp4")
    film(tmp_path / "a" / "lonely.mp4")
    return tmp_path


def made(folders: Path, **given: Any) -> list[str]:
    said: list[str] = []
    asked = {
        "videos": [f"A={folders / 'a'}", f"B={folders / 'b'}"],
        **{"prompts": None, "subjects": [], "bench": None, "methods": [], "items": None},
        "settings": {},
        **given,
    }
    new(folders / "study", **asked, say=said.append)
    return said


def test_files_of_one_name_are_compared_under_names_that_tell_nothing(folders: Path) -> None:
    said = made(folders)
    items = read_items(folders / "study")
    assert items.methods == ("A", "B") and [one.key for one in items.items] == [
        "one",
        "three",
        "two",
    ]
    assert items.items[0].size == (48, 32)
    names = {path.name for path in (folders / "study" / MEDIA).iterdir()}
    assert names == items.files and len(names) == 6 + 3
    assert all(len(name) == 28 and int(name[:24], 16) for name in names)
    assert "Left out: 1 prompts" in said[0]
    # There are no prompts and no photos to ask about.
    assert [one.key for one in read_plan(folders / "study").questions] == ["motion", "overall"]


def test_a_video_made_for_browsers_is_copied_and_any_other_encoded(folders: Path) -> None:
    (folders / "b" / "two.mp4").unlink()
    film(folders / "b" / "two.gif")
    made(folders)
    items, media = read_items(folders / "study"), folders / "study" / MEDIA
    copied = media / items["two"].videos["A"]
    assert copied.read_bytes() == (folders / "a" / "two.mp4").read_bytes()
    encoded = media / items["two"].videos["B"]
    assert encoded.suffix == ".mp4" and len(Video.load(encoded)) == 3


def test_the_mosaic_is_still_grey_and_as_long(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", prompts=2, per_rater=2)
    items = read_items(folder)
    assert len(items.checks) == 2
    item = items.checks[0]
    spoiled, clean = (
        Video.load(folder / MEDIA / name) for name in (item.spoiled, item.videos[item.checks])
    )
    assert spoiled.frames.shape == clean.frames.shape and spoiled.fps == clean.fps
    assert np.ptp(spoiled.frames.astype(int), axis=0).max() <= 2, "it moves"
    assert np.ptp(spoiled.frames.astype(int), axis=3).max() <= 3, "it has colours"


def test_prompts_and_photos_come_with_their_videos(folders: Path) -> None:
    (folders / "prompts.toml").write_text(
        'one = "a <tom> cat"\ntwo = "a <rex> dog"\nthree = "a <tom> cat and a <rex> dog"\n'
    )
    for name in ("tom", "rex"):
        film(folders / name / "photo.png")
    made(
        folders,
        prompts=folders / "prompts.toml",
        subjects=[f"tom:cat={folders / 'tom'}", f"rex:dog={folders / 'rex'}"],
        items=2,
        settings={"per_rater": 2},
    )
    items = read_items(folders / "study")
    assert [one.prompt for one in items.items] == ["a <tom> cat", "a <tom> cat and a <rex> dog"]
    assert [[ref.word for ref in one.references] for one in items.items] == [
        ["<tom>"],
        ["<tom>", "<rex>"],
    ]
    assert len(read_plan(folders / "study").questions) == 4


def test_a_benchmarks_videos_are_compared_prompt_by_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = np.zeros((40, 40, 3), np.uint8)
    monkeypatch.setattr(sources, "edition_photos", lambda name: lambda subject: [photo] * 5)
    run = tmp_path / "bench"
    for index, method in enumerate(("customvideo", "dreambooth", "base")):
        job = run / "jobs" / f"job{index}"
        told = {
            "method": method,
            "combination": "ida+rex",
            "subjects": [{"name": "ida", "category": "cat"}, {"name": "rex", "category": "dog"}],
            "prompts": ["a <ida> cat and a <rex> dog running", "the same, sleeping"],
            "samples": [[0, 0], [1, 0]],
        }
        for prompt in (0, 1):
            if (method, prompt) != ("dreambooth", 1):
                film(job / "videos" / f"{prompt}-0.mp4")
        (job / "job.json").write_text(json.dumps(told))
    (run / "bench.json").write_text(json.dumps({"version": 1, "edition_from": "toybox"}))
    found = from_benchmark(run)
    assert found.methods == ("customvideo", "dreambooth") and found.left_out == 1
    (one,) = found.candidates
    assert (one.key, one.people) == ("ida+rex/0/0", ("ida", "rex"))
    assert one.prompt == "a <ida> cat and a <rex> dog running"
    assert found.people["ida"].category == "cat" and len(found.people["ida"].photos) == 3
    both = from_benchmark(run, ["customvideo", "base"])
    assert both.methods == ("customvideo", "base") and len(both.candidates) == 2
    with pytest.raises(UserError, match="did you mean 'dreambooth'"):
        from_benchmark(run, ["dreambooht"])


WRONG = {
    "one method": ({"videos": ["A={a}"]}, "at least two methods"),
    "no equals": ({"videos": ["A", "B={b}"]}, "METHOD=FOLDER"),
    "twice": ({"videos": ["A={a}", "A={b}"]}, "two methods 'A'"),
    "no folder": ({"videos": ["A={a}", "B=/nowhere"]}, "There is no folder '/nowhere'"),
    "empty": ({"videos": ["A={a}", "B={empty}"]}, "holds no video"),
    "apart": ({"videos": ["A={a}", "B={apart}"]}, "same file name in all folders"),
    "damaged": ({"videos": ["A={a}", "B={damaged}"]}, "cannot be read as a video"),
    "both": ({"bench": "{a}"}, "either --videos"),
    "neither": ({"videos": []}, "either --videos"),
    "method": ({"methods": ["A"]}, "--method chooses among a benchmark's"),
    "no bench": ({"videos": [], "bench": "{a}"}, "There is no benchmark"),
    "prompt": ({"prompts": "{prompts}"}, "no prompt for the video 'three'"),
    "photos": ({"subjects": ["tom=/nowhere"]}, "no folder '/nowhere' with photos of 'tom'"),
    "many": ({"settings": {"per_rater": 99}}, "only 3 comparisons"),
    "setting": ({"settings": {"raters": 0}}, "raters"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_told_and_leaves_nothing(folders: Path, case: str) -> None:
    (folders / "empty").mkdir()
    film(folders / "apart" / "elsewhere.mp4")
    (folders / "damaged").mkdir()
    (folders / "damaged" / "one.mp4").write_bytes(b"no video")
    (folders / "prompts.toml").write_text('one = "x"\n')
    places = {path.name: path for path in folders.iterdir() if path.is_dir()}
    places["prompts"] = folders / "prompts.toml"
    given, said = WRONG[case]
    filled = {key: _filled(value, places) for key, value in given.items()}
    for key in ("bench", "prompts"):
        if key in filled:
            filled[key] = Path(filled[key])
    before = sorted(folders.rglob("*"))
    with pytest.raises(UserError, match=said):
        made(folders, **filled)
    assert sorted(folders.rglob("*")) == before


def _filled(value: Any, places: dict[str, Path]) -> Any:
    if isinstance(value, list):
        return [_filled(one, places) for one in value]
    return value.format(**places) if isinstance(value, str) else value


def test_a_folder_with_something_in_it_is_not_taken(folders: Path) -> None:
    (folders / "study").mkdir()
    (folders / "study" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something at"):
        made(folders)
    assert [path.name for path in (folders / "study").iterdir()] == ["thesis.txt"]


def test_the_verbs_say_in_one_sentence_what_is_wrong(folders: Path) -> None:
    for arguments, said in (
        (["study", "serve", str(folders / "none")], "There is no study"),
        (["study", "tally", str(folders / "none")], "There is no study"),
        (["study", "power", "--rate", "1.5"], "a rate between 0.5 and 1"),
        (["study", "new", str(folders / "a"), "--videos", "A=x"], "at least two|no folder"),
    ):
        result = run_cli(*arguments)
        assert result.exit_code == 2 and "Traceback" not in result.output
        assert result.stderr.count("\n") == 1, result.stderr
        assert any(part in result.stderr for part in said.split("|"))


def test_the_verbs_go_from_videos_to_a_tally(folders: Path) -> None:
    videos = ["--videos", f"A={folders / 'a'}", "--videos", f"B={folders / 'b'}"]
    assert run_cli("study", "new", str(folders / "s"), *videos).exit_code == 0
    power = run_cli("study", "power", str(folders / "s"), "--raters", "10", "--trials", "50")
    assert power.exit_code == 0 and "2 methods, 3 prompts, 3 comparisons a rater" in power.stdout
    tally = run_cli("study", "tally", str(folders / "s"))
    assert tally.exit_code == 0 and "0 comparisons by 0 raters" in tally.stdout
    assert (folders / "s" / "tally" / "votes.csv").is_file()
    closed = run_cli("study", "close", str(folders / "s"))
    assert closed.exit_code == 0 and "Closed with 0 raters" in closed.stdout
