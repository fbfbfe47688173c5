"""Many customizations in one go: what a plan asks for, and what becomes of it."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest

from customvideo.adapters.adapter import Adapter
from customvideo.batch.commands import run_batch
from customvideo.batch.plan import load_plan, run_of
from customvideo.batch.work import RunFolder, Worker
from customvideo.claims import Claim, TakenOver
from customvideo.errors import ConfigError, FleetError
from tests.surroundings import QUICK, contents, run_cli, write_photos

CHANGES = "\n".join(f"{key} = {value}" for key, value in QUICK.items() if key != "compose")


@pytest.fixture
def customers(tmp_path: Path) -> Path:
    """Two customers, one with two subjects."""
    for seed, (who, name) in enumerate((("ann", "tom"), ("ann", "rex"), ("bob", "tom"))):
        folder = write_photos(tmp_path / "customers" / who / name, seed)
        (folder / "subject.toml").write_text('category = "cat"\n')
    return tmp_path / "customers"


def write_plan(folder: Path, backbone: Path, more: str = 'each = "customers"') -> Path:
    plan = folder / "plan.toml"
    plan.write_text(
        f'{more}\nprompts = ["{{subjects}} on the beach"]\n'
        f'[changes]\nbackbone = "{backbone}"\ncompose = "paste"\n{CHANGES}\n'
    )
    return plan


def test_a_batch_is_done_once_and_goes_on(customers: Path, tiny_zeroscope: Path) -> None:
    plan = write_plan(customers.parent, tiny_zeroscope)
    out = customers.parent / "out"
    ended = run_cli("batch", plan, "--out", out, "--device", "cpu")
    assert ended.exit_code == 0, ended.output
    assert "2 runs: 0 are done, 2 to do." in ended.output
    rows = list(csv.DictReader((out / "batch.csv").read_text().splitlines()))
    assert [(row["run"], row["state"]) for row in rows] == [("ann", "done"), ("bob", "done")]
    words = [word.name for word in Adapter.load(out / rows[0]["adapter"]).words]
    assert words == ["rex", "tom"]
    assert (out / "bob" / "videos" / "0-0.mp4").is_file()
    assert not (out / "ann" / "run" / "checkpoints").exists()
    before = contents(out)
    assert "2 are done, 0 to do" in run_cli("batch", plan, "--out", out).output
    assert contents(out) == before
    # One more seed trains nothing anew, and what a power cut took is made again.
    (out / "bob" / "done.json").unlink()
    (out / "bob" / "videos" / "0-0.mp4").unlink()
    again = run_cli("batch", plan, "--out", out, "--device", "cpu")
    assert again.exit_code == 0 and "1 are done, 1 to do" in again.output
    assert contents(out)["bob/videos/0-0.mp4"] == before["bob/videos/0-0.mp4"]


def test_a_run_that_fails_is_told_and_the_others_go_on(
    customers: Path, tiny_zeroscope: Path
) -> None:
    (customers / "ann" / "rex" / "0.png").write_bytes(b"no picture")
    plan = write_plan(customers.parent, tiny_zeroscope)
    out = customers.parent / "out"
    lines: list[str] = []
    ended = run_batch(load_plan(plan), out, say=lines.append, device="cpu")
    assert (ended.done, [one.job.title for one in ended.failed]) == (1, ["ann"])
    assert any("Failed: ann: " in line and "0.png" in line for line in lines)
    # Not tried again unless asked, then mended.
    assert run_cli("batch", plan, "--out", out).exit_code == 1
    os.replace(write_photos(customers.parent / "spare", 2) / "0.png", customers / "ann/rex/0.png")
    mended = run_batch(load_plan(plan), out, say=lines.append, retry_failed=True, device="cpu")
    assert mended.done == 2


def test_plans_say_what_every_run_is(customers: Path, tiny_zeroscope: Path) -> None:
    runs = """[runs.pets]
subjects = { tom = "customers/ann/tom" }
prompts = ["<tom> runs", "<tom> sits"]
seeds = [3, 4]
steps = 7
"""
    (customers.parent / "plan.toml").write_text(
        'each = "customers"\nseeds = [1]\n'
        f'[changes]\nbackbone = "{tiny_zeroscope}"\nsteps = 5\n{runs}'
    )
    pets, ann, _bob = load_plan(customers.parent / "plan.toml", [("batch_size", 1)])
    assert (pets.title, pets.recipe.steps, pets.seeds, len(pets.prompts)) == ("pets", 7, (3, 4), 2)
    assert (ann.recipe.steps, ann.recipe.batch_size, ann.seeds) == (5, 1, (1,))
    assert Path(pets.recipe.subjects["tom"].folder) == customers / "ann" / "tom"
    back = run_of(pets.to_dict())
    assert back == pets and back.digest == pets.digest != ann.digest
    told = pets.to_dict() | {"seeds": [3]}
    assert run_of(told).digest != pets.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "asks for nothing"),
        ("each = 'nowhere'", "no folder"),
        ("[runs.a]\nsteps = 5", "has no subjects"),
        ("[runs.'../a']\nsubjects = { tom = 'x' }", "cannot name a run"),
        ("[runs", "not valid TOML"),
        ("runz = 3", "runz"),
        ("[runs.a]\nsubjects = { tom = 'x' }\nstepz = 3", "stepz"),
    ],
)
def test_plans_that_cannot_be_are_refused_in_a_sentence(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises((FleetError, ConfigError), match=message):
        load_plan(tmp_path / "plan.toml")
    result = run_cli("batch", tmp_path / "plan.toml", "--out", tmp_path / "out")
    assert result.exit_code == 2 and not (tmp_path / "out").exists()


def test_videos_can_be_added_but_another_run_of_the_same_name_is_refused(
    customers: Path, tiny_zeroscope: Path
) -> None:
    only, _ = load_plan(write_plan(customers.parent, tiny_zeroscope))
    out, lines = customers.parent / "out", list[str]()
    run_batch([only], out, say=lines.append, device="cpu")
    before = contents(out)
    more = replace(only, prompts=(*only.prompts, "{subjects}"), seeds=(0, 8))
    assert run_batch([more], out, say=lines.append, device="cpu").done == 1
    after, done = contents(out), contents(out / "ann")
    assert {"ann/videos/1-0.mp4", "ann/videos/0-8.mp4"} <= after.keys() - before.keys()
    kept = [name for name in before if name.endswith(("safetensors", "0-0.mp4", "losses.jsonl"))]
    assert all(after[name] == before[name] for name in kept) and len(kept) == 3
    for other in (
        replace(only, prompts=("another",)),
        replace(only, recipe=only.recipe.model_copy(update={"steps": 3})),
    ):
        ended = run_batch([other], out, say=lines.append, retry_failed=True, device="cpu")
        assert "asked for differently" in ended.failed[0].message
    assert contents(out / "ann") == done, "it is left as it was"


def test_an_unfinished_run_of_another_plan_is_left_as_it_is(
    customers: Path, tiny_zeroscope: Path
) -> None:
    only, _ = load_plan(write_plan(customers.parent, tiny_zeroscope))
    out = customers.parent / "out"
    folder = RunFolder(out, only.title)
    folder.ask(only)
    (folder.run / "checkpoints" / "000001").mkdir(parents=True)
    before = contents(folder.path)
    other = replace(only, prompts=("another",))
    ended = run_batch([other], out, say=lambda _: None, device="cpu")
    assert "asked for differently" in ended.failed[0].message
    assert contents(folder.path) == before


def test_a_worker_that_seemed_dead_gives_way(
    customers: Path, tiny_zeroscope: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was suspended for so long that another one has taken its run over."""
    only, _ = load_plan(write_plan(customers.parent, tiny_zeroscope))
    out = customers.parent / "out"

    def taken_over(self: Claim) -> None:
        raise TakenOver

    monkeypatch.setattr(Claim, "require", taken_over)
    assert Worker(out, "cpu").do(only).ended == "taken"
    assert not RunFolder(out, only.title).failure


def test_a_run_is_known_by_its_photos_and_not_by_its_place(
    customers: Path, tiny_zeroscope: Path
) -> None:
    plan = write_plan(customers.parent, tiny_zeroscope)
    before = [run.digest for run in load_plan(plan)]
    moved = customers.parent / "elsewhere"
    moved.mkdir()
    customers.rename(moved / "customers")
    plan.rename(moved / "plan.toml")
    assert [run.digest for run in load_plan(moved / "plan.toml")] == before
    photo = moved / "customers" / "ann" / "tom" / "0.png"
    photo.write_bytes(photo.read_bytes() + b"0")
    ann, bob = load_plan(moved / "plan.toml")
    assert ann.digest != before[0] and bob.digest == before[1]


def test_every_path_of_a_plan_is_found_from_its_folder(
    customers: Path, tiny_zeroscope: Path
) -> None:
    home = customers.parent
    (home / "model").symlink_to(tiny_zeroscope)
    (home / "plan.toml").write_text(
        '[changes]\nbackbone = "model"\nstart_from = "old.safetensors"\n'
        '[runs.a]\nsubjects = { tom = "customers/ann/tom" }\ngroups = { tom = "together" }\n'
    )
    (run,) = load_plan(home / "plan.toml")
    assert run.recipe.backbone == str(home / "model")
    assert run.recipe.start_from == str(home / "old.safetensors")
    assert run.recipe.groups == {"tom": str(home / "together")}
