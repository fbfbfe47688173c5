"""Merging, adding and removing through the command line: what is written, said, and refused.

Each refusal is one sentence with exit code 2, and leaves nothing behind.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import Result

from customvideo.adapters.adapter import Adapter
from customvideo.config import load_recipe
from customvideo.runs import merging
from customvideo.training.checkpoint import newest_valid
from tests.surroundings import contents, run_cli, sampled, sets, train, write_photos
from tests.tiny import build_tiny_zeroscope


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("tom", "rex", "ida"), start=1):
        write_photos(folder / name, seed)
    return folder


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, photos: Path, tiny_zeroscope: Path
) -> dict[str, Path]:
    """Adapter files by what is special about them; read-only by agreement."""
    out = tmp_path_factory.mktemp("runs")
    elsewhere = build_tiny_zeroscope(out / "other-model", seed=1)
    tom, rex = f"tom:cat={photos / 'tom'}", f"rex:dog={photos / 'rex'}"
    for name, subject, model, more in (
        ("tom", tom, tiny_zeroscope, ()),
        ("rex", rex, tiny_zeroscope, ("--set", "rank=2")),
        ("gated tom", tom, tiny_zeroscope, ("--set", "gate=words")),
        ("gated rex", rex, tiny_zeroscope, ("--set", "gate=words")),
        ("elsewhere", rex, elsewhere, ()),
    ):
        result = train(out / name, ["--subject", subject], model, *more)
        assert result.exit_code == 0, result.output
    return {path.parent.name: path for path in out.glob("*/adapter.safetensors")}


def in_the_middle(picture: Any, _category: str) -> Any:
    """A segmenter for pictures of a model that draws nothing."""
    mask = np.zeros(picture.shape[:2], np.float32)
    mask[16:48, 24:72] = 1
    return mask


def complaint(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("customvideo: ")]
    assert len(said) == 1 and said[0].endswith("."), result.stderr
    return said[0]


# Merging


def test_merge_writes_an_adapter_and_says_what_it_costs(
    runs: dict[str, Path], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    both, report = tmp_path / "new" / "both.safetensors", tmp_path / "both.json"
    result = run_cli(
        *("merge", runs["tom"], runs["rex"], "--out", both, "--report", report),
        *("--backbone", tiny_zeroscope),
    )
    assert result.exit_code == 0, result.output
    costs = json.loads(report.read_text(encoding="utf-8"))
    ways = {"sum", "closed-form", "gradient"}
    assert costs["subjects"].keys() == {"tom", "rex"}
    assert all(row.keys() == ways for row in costs["subjects"].values())
    worst = {way: max(row[way]["of_change"] for row in costs["subjects"].values()) for way in ways}
    assert costs["how"] == min(worst, key=lambda way: worst[way])
    shown = {line.split()[0]: line.split() for line in result.stdout.splitlines()[2:5]}
    assert shown.keys() == ways
    for way in ways:
        wanted = [f"{costs['subjects'][name][way]['of_change']:.4f}" for name in ("tom", "rex")]
        assert shown[way][1:3] == wanted
    assert "written" in " ".join(shown[costs["how"]])
    assert [word.name for word in Adapter.load(both).words] == ["tom", "rex"]
    made = run_cli(
        *("generate", "a <tom> cat and a <rex> dog", "--adapter", both, *sampled()),
        *("--out", tmp_path / "v.png", "--backbone", tiny_zeroscope),
    )
    assert made.exit_code == 0, made.output


def test_merge_can_be_told_how_and_rename(runs: dict[str, Path], tmp_path: Path) -> None:
    captions, out = tmp_path / "captions.txt", tmp_path / "toms.safetensors"
    captions.write_text("a dog on the beach\n\na man in a car\n")
    # The recipe beside the first says where its backbone is.
    result = run_cli(
        *("merge", runs["tom"], runs["tom"], "--rename", "<tom>=tim", "--out", out),
        *("--how", "closed-form", "--captions", captions),
    )
    assert result.exit_code == 0, result.output
    assert "by closed-form" in result.stdout
    assert [word.name for word in Adapter.load(out).words] == ["tom", "tim"]


def test_merging_gated_adapters_costs_nothing(runs: dict[str, Path], tmp_path: Path) -> None:
    out, report = tmp_path / "both.safetensors", tmp_path / "r.json"
    result = run_cli(
        "merge", runs["gated tom"], runs["gated rex"], "--out", out, "--report", report
    )
    assert result.exit_code == 0, result.output
    costs = json.loads(report.read_text(encoding="utf-8"))["subjects"]
    assert [row["sum"]["of_change"] for row in costs.values()] == [0, 0]
    less = tmp_path / "less.safetensors"
    gone = run_cli("remove", "tom", "--from", out, "--out", less)
    assert gone.exit_code == 0 and "All that was learned of <tom> is gone" in gone.stdout
    left, own = Adapter.load(less), Adapter.load(runs["gated rex"])
    for path, delta in own.deltas.items():
        [part] = left.deltas[path].parts  # type: ignore[union-attr]
        assert torch.equal(part.merged(), delta.merged())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tom}"], "two adapters or more"),
        (["{tom}", "{tom}"], r"share the word '<tom>'.*--rename tom=tom2"),
        (["{tom}", "{elsewhere}"], r"whose weights differ; merge adapters of one backbone"),
        (["{tom}", "{gated rex}"], r"gate=words and that of <tom> gate=none"),
        (["{tom}", "{rex}", "--how", "average"], r"no way 'average'.*sum, closed-form, gradient"),
        (["{tom}", "{rex}", "--rename", "tom"], r"Cannot rename 'tom'; write old=new"),
        (["{tom}", "{rex}", "--rename", "tim=tam"], r"No adapter knows 'tim'.*'tom', 'rex'"),
        (["{tom}", "{rex}", "--rename", "tom=rex"], r"share the word '<rex>'"),
        (["{tom}", "{rex}", "--captions", "nowhere.txt"], r"'nowhere.txt' cannot be read"),
        (["{gated tom}", "{gated rex}", "--how", "gradient"], r"merge them with --how sum"),
        (["{tom}", "nowhere.safetensors"], r"no adapter file 'nowhere.safetensors'"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    runs: dict[str, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [runs[text.strip("{}")] if text.startswith("{") else text for text in arguments]
    said = complaint(run_cli("merge", *given, "--out", tmp_path / "a" / "both.safetensors"))
    assert re.search(message, said), said
    assert not list(tmp_path.iterdir())


def test_a_merge_replaces_nothing(runs: dict[str, Path], tmp_path: Path) -> None:
    kept = tmp_path / "mine.safetensors"
    kept.write_text("mine")
    said = complaint(run_cli("merge", runs["tom"], runs["rex"], "--out", kept))
    assert "already" in said and kept.read_text() == "mine"
    said = complaint(run_cli("merge", runs["tom"], runs["rex"], "--out", tmp_path / "both"))
    assert ".safetensors" in said and len(list(tmp_path.iterdir())) == 1


# Adding


@pytest.mark.parametrize("given", [True, False])
def test_add_goes_on_and_leaves_earlier_words(
    runs: dict[str, Path],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: bool,
) -> None:
    monkeypatch.setattr(merging, "resolve_segmenter", lambda *_: in_the_middle)
    replay = ["--replay", f"tom={photos / 'tom'}"] if given else []
    before, out = contents(runs["tom"].parent), tmp_path / "both"
    result = run_cli(
        *("add", f"ida:cat={photos / 'ida'}", "--to", runs["tom"], "--out", out, *replay),
        *sets(),
    )
    assert result.exit_code == 0, result.output
    assert contents(runs["tom"].parent) == before
    earlier, later = Adapter.load(runs["tom"]), Adapter.load(out / "adapter.safetensors")
    assert [word.name for word in later.words] == ["tom", "ida"]
    assert torch.equal(later.tokens.value[0], earlier.tokens.value[0])
    moved = [
        not torch.equal(delta.merged(), earlier.deltas[path].merged())  # type: ignore[operator]
        for path, delta in later.deltas.items()
    ]
    assert all(moved)
    assert ("is drawn by what was learned" in result.stdout) != given
    assert (out / "replay" / "tom" / "0.png").is_file() != given
    assert load_recipe(out / "recipe.toml").start_from == str(runs["tom"])


def test_an_addition_begins_where_the_earlier_run_ended(
    runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    """With rates of almost nothing the deltas are those of before, and resuming keeps the rows."""
    out, slow = tmp_path / "both", sets(learning_rate="1e-12", word_learning_rate="1e-3")
    arguments = [f"ida:cat={photos / 'ida'}", "--to", runs["tom"], "--out", out]
    replay = ["--replay", f"tom={photos / 'tom'}"]
    assert run_cli("add", *arguments, *replay, *slow).exit_code == 0
    earlier, later = Adapter.load(runs["tom"]), Adapter.load(out / "adapter.safetensors")
    for path, delta in later.deltas.items():
        torch.testing.assert_close(
            delta.merged(),  # type: ignore[operator]
            earlier.deltas[path].merged(),  # type: ignore[operator]
            atol=1e-9,
            rtol=1e-4,
        )
    (out / "adapter.safetensors").unlink()
    again = run_cli("add", *arguments, "--resume")
    assert again.exit_code == 0, again.output
    newest = newest_valid(out / "checkpoints").newest
    assert newest is not None and newest.step == 4
    resumed = Adapter.load(out / "adapter.safetensors")
    assert torch.equal(resumed.tokens.value, later.tokens.value)
    assert torch.equal(resumed.tokens.value[0], earlier.tokens.value[0])


def test_a_low_rank_adapter_and_a_gated_one_go_on(
    runs: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    for name, word in (("rex", "rex"), ("gated tom", "tom")):
        out = tmp_path / name
        result = run_cli(
            *("add", f"ida:cat={photos / 'ida'}", "--to", runs[name], "--out", out, *sets()),
            *("--replay", f"{word}={photos / word}"),
        )
        assert result.exit_code == 0, result.output
        later = Adapter.load(out / "adapter.safetensors")
        assert [one.name for one in later.words] == [word, "ida"]
        assert later.header.gate == Adapter.load(runs[name]).header.gate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tom:cat={photos}/ida", "--to", "{tom}"], r"There is a <tom> in '.*' already"),
        (["ida:cat={photos}/ida", "--to", "nowhere.safetensors"], "no adapter file"),
        (["ida", "--to", "{tom}"], r"'ida' does not describe a subject"),
        (["ida:cat=nowhere", "--to", "{tom}", "--replay", "tom={photos}/tom"], "does not exist"),
        (["ida:cat={photos}/ida", "--to", "{tom}", "--replay", "x={photos}/tom"], r"no 'x'"),
        (["ida:cat={photos}/ida", "--to", "{tom}", "--replay", "tom"], r"'tom' does not describe"),
        (
            [
                *("ida:cat={photos}/ida", "--to", "{tom}", "--replay", "tom={photos}/tom"),
                *("--set", "gate=words"),
            ],
            r"another gate, so training cannot go on",
        ),
        (
            [
                *("ida:cat={photos}/ida", "--to", "{tom}", "--replay", "tom={photos}/tom"),
                *("--set", "train=words"),
            ],
            r"changes other layers",
        ),
    ],
)
def test_what_cannot_be_added_is_refused(
    runs: dict[str, Path], photos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    filled = [text.format(photos=photos, tom=runs["tom"]) for text in arguments]
    said = complaint(run_cli("add", *filled, "--out", tmp_path / "run", *sets()))
    assert re.search(message, said), said
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_found_in_drawn_pictures_is_asked_for(
    runs: dict[str, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(picture: Any, _category: str) -> Any:
        return np.zeros(picture.shape[:2], np.float32)

    monkeypatch.setattr(merging, "resolve_segmenter", lambda *_: nowhere)
    new = f"ida:cat={photos / 'ida'}"
    said = complaint(run_cli("add", new, "--to", runs["tom"], "--out", tmp_path / "run", *sets()))
    assert "pictures that the adapter draws of <tom>" in said and "--replay tom=" in said
    assert not list(tmp_path.iterdir())


# Removing


def test_removing_a_shared_word_says_what_stays(
    runs: dict[str, Path], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    both, less = tmp_path / "both.safetensors", tmp_path / "less.safetensors"
    told = ("--backbone", tiny_zeroscope)
    merged = run_cli("merge", runs["tom"], runs["rex"], "--how", "sum", "--out", both, *told)
    assert merged.exit_code == 0, merged.output
    result = run_cli("remove", "<rex>", "--from", both, "--out", less)
    assert result.exit_code == 0 and "shared stay, so that <tom> are exactly" in result.stdout
    said = complaint(
        run_cli(
            *("generate", "a <rex> dog", "--adapter", less, "--out", tmp_path / "v.png"),
            *(*sampled(), *told),
        )
    )
    assert "<rex> was removed" in said and not (tmp_path / "v.png").exists()
    made = [tmp_path / "one.png", tmp_path / "two.png"]
    for adapter, picture in zip((both, less), made, strict=True):
        asked = ("generate", "a <tom> cat", "--adapter", adapter, "--out", picture)
        assert run_cli(*asked, *sampled(), *told).exit_code == 0
    assert made[0].read_bytes() == made[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "out", "message"),
    [
        ("ida", "less.safetensors", "no 'ida'; it knows 'tom'"),
        ("tom", "less.safetensors", "only word"),
        ("tom", "less", ".safetensors"),
    ],
)
def test_what_cannot_be_removed_is_refused(
    runs: dict[str, Path], tmp_path: Path, name: str, out: str, message: str
) -> None:
    said = complaint(run_cli("remove", name, "--from", runs["tom"], "--out", tmp_path / out))
    assert message in said
    assert not list(tmp_path.iterdir())
