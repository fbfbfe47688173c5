"""`customvideo bench`, through the command line: whole runs, and everything that can be wrong."""

from __future__ import annotations

import errno
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from customvideo.benchmark import commands, editions, job, kit
from customvideo.benchmark.editions import EDITIONS
from customvideo.benchmark.rows import read_rows
from customvideo.fleet import ray as on_ray
from customvideo.training.interrupt import Interrupted
from tests.benchmark.small import CATS, QUICK, Filmed, told, write_edition
from tests.surroundings import contents, run_cli

PLAN = """
edition = "{edition}"
pairs = 1
prompts = 1
seeds = 1
device = "cpu"
[changes]
{changes}
[entries]
customvideo = {{}}
customvideo-no-control = {{ attention_weight = 0.0 }}
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_edition(tmp_path_factory.mktemp("photos") / "toys")


@pytest.fixture(scope="module")
def plan(toys: Path) -> Path:
    changes = "\n".join(f"{key} = {_toml(value)}" for key, value in QUICK.items())
    path = toys.parent / "plan.toml"
    path.write_text(PLAN.format(edition=toys, changes=changes), encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


@pytest.fixture(scope="module")
def results(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run's folder, and what it said; read-only by agreement."""
    out = tmp_path_factory.mktemp("bench") / "results"
    result = run_cli("bench", "run", "--plan", plan, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result.output


@pytest.fixture
def copied(results: tuple[Path, str], tmp_path: Path) -> Path:
    """The same folder to do something to."""
    return Path(shutil.copytree(results[0], tmp_path / "results"))


def complaint(result: Result) -> str:
    """The one sentence a person reads."""
    assert result.exit_code == 2, result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("customvideo: ")]
    assert len(said) == 1 and "Traceback" not in result.output, result.output
    assert said[0].endswith((".", "?")), "not a whole sentence"
    return said[0]


def test_a_run_compares_its_entries_with_the_base_model(results: tuple[Path, str]) -> None:
    out, said = results
    assert "1 combinations, 3 jobs: 0 are done, 3 to do." in said
    assert "[3/3]" in said and f"customvideo bench table {out}" in said
    rows = read_rows(out / "rows.csv")
    methods = ["base", "customvideo", "customvideo-no-control"]
    assert sorted({row.method for row in rows}) == methods
    assert len(rows) == 3 * 2 and {row.subject for row in rows} == {CATS[0], "rex"}
    learned = [row for row in rows if row.method != "base"]
    assert all(row.trained_parameters and row.adapter_bytes for row in learned)
    assert all(row.clip_t is not None and row.dino_i_crop is not None for row in rows)
    assert all(
        row.freeze is not None and row.small == (row.subject == small)
        for row in rows
        for small in [_small(rows)]
    )
    assert told(out / "bench.json").keys() == {
        *("version", "edition", "edition_from", "edition_digest")
    }


def _small(rows: list[Any]) -> str:
    """The one subject of the pair that is marked as small; there need not be one."""
    return next((row.subject for row in rows if row.small), "")


def test_run_again_it_does_nothing(results: tuple[Path, str], plan: Path) -> None:
    before = contents(results[0])
    result = run_cli("bench", "run", "--plan", plan, "--out", results[0])
    assert result.exit_code == 0 and "3 are done, 0 to do" in result.output
    assert contents(results[0]) == before


def test_flags_ask_for_more_and_what_is_there_is_kept(copied: Path, plan: Path) -> None:
    adapters = {path: path.stat().st_mtime_ns for path in copied.rglob("adapter.safetensors")}
    flags = ["--seeds", "2", "--entry", "customvideo"]
    result = run_cli("bench", "run", "--plan", plan, "--out", copied, *flags)
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in adapters} == adapters
    seeds = {(row.method, row.seed) for row in read_rows(copied / "rows.csv")}
    # The entry that was not asked for this time keeps its rows.
    assert seeds == {
        *(("base", 0), ("base", 1), ("customvideo", 0), ("customvideo", 1)),
        ("customvideo-no-control", 0),
    }


def test_a_recipe_that_changed_takes_its_label_along(copied: Path, plan: Path) -> None:
    flags = ["--entry", "customvideo", "--set", "steps=3"]
    before = {row.method: row for row in read_rows(copied / "rows.csv")}
    result = run_cli("bench", "run", "--plan", plan, "--out", copied, *flags)
    assert result.exit_code == 0 and "1 earlier results lose their label" in result.output
    after = {row.method: row for row in read_rows(copied / "rows.csv")}
    assert after["customvideo"] != before["customvideo"]
    assert after["customvideo-no-control"] == before["customvideo-no-control"]
    assert len(list((copied / "jobs").iterdir())) == 4


def test_true_footage_is_scored_where_there_is_some(
    plan: Path, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EDITIONS, "filmed", f"{__name__}:filmed")
    monkeypatch.setattr(editions, "import_target", lambda _: lambda: Filmed(toys))
    flags = ["--edition", "filmed", "--entry", "customvideo", "--only", "same-category"]
    result = run_cli("bench", "run", "--plan", plan, "--out", tmp_path / "out", *flags)
    assert result.exit_code == 0, result.output
    rows = read_rows(tmp_path / "out" / "rows.csv")
    assert {row.method for row in rows} == {"base", "ceiling", "customvideo"}
    assert all(row.same_category and row.category == "cat" for row in rows)
    costs = {row.method: (row.train_seconds, row.sample_seconds) for row in rows}
    assert costs["ceiling"] == (None, None) and costs["base"][1] is not None


def test_a_job_that_fails_is_told_and_tried_again_when_asked(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = job.Worker._learn
    out = tmp_path / "out"

    def fail(self: Any, one: Any, *rest: Any) -> None:
        if one.method == "customvideo":
            raise RuntimeError("the moon is full")
        learn(self, one, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(job.Worker, "_learn", fail)
        result = run_cli("bench", "run", "--plan", plan, "--out", out)
    assert result.exit_code == 1, result.output
    assert "Failed: customvideo on" in result.output and "the moon is full" in result.output
    assert "1 of 3 jobs failed" in result.output and "--retry-failed" in result.output
    # All others are there.
    methods = {row.method for row in read_rows(out / "rows.csv")}
    assert methods == {"base", "customvideo-no-control"}
    before = contents(out)
    again = run_cli("bench", "run", "--plan", plan, "--out", out)
    assert again.exit_code == 1 and "the moon is full" in again.output
    assert contents(out) == before
    last = run_cli("bench", "run", "--plan", plan, "--out", out, "--retry-failed")
    assert last.exit_code == 0 and "2 are done, 1 to do" in last.output
    assert not list(out.rglob("failed.json"))


def test_stopped_it_keeps_what_is_finished(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise Interrupted("Stopped after step 1 of 2; add --resume to go on.")

    monkeypatch.setattr(job.Trainer, "fit", stop)
    result = run_cli("bench", "run", "--plan", plan, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "Stopped after step 1 of 2; run the same command again to go on." in result.stderr
    assert {row.method for row in read_rows(tmp_path / "out" / "rows.csv")} == {"base"}


def test_scores_come_from_the_videos_again(copied: Path) -> None:
    before = (copied / "rows.csv").read_bytes()
    for path in [*copied.rglob("rows.*"), *copied.rglob("adapter.safetensors")]:
        path.unlink() if path.suffix != ".safetensors" else path.touch()
    result = run_cli("bench", "score", copied, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert (copied / "rows.csv").read_bytes() == before


def test_tables_and_the_page_come_from_the_rows(copied: Path) -> None:
    (copied / "rows.csv").unlink()
    result = run_cli("bench", "table", copied)
    assert result.exit_code == 0, result.output
    page = (copied / "tables" / "tables.html").read_text(encoding="utf-8")
    assert "customvideo-no-control" in page and "data:video" in page
    assert "Wrote" in result.output and str(copied / "tables") in result.output
    small = run_cli("bench", "table", copied, "--max-mb", "0", "--out", copied / "small")
    assert small.exit_code == 0 and "Tables and plots alone" in small.output
    page = (copied / "small" / "tables.html").read_text(encoding="utf-8")
    assert "data:video" not in page and "To keep this page within 0 MB" in page


def test_check_says_whether_an_edition_is_sound(toys: Path, tmp_path: Path) -> None:
    result = run_cli("bench", "check", toys)
    assert result.exit_code == 0 and "3 subjects, 3 combinations" in result.output
    spoilt = Path(shutil.copytree(toys, tmp_path / "toys"))
    (spoilt / "rex" / "1.png").write_bytes(b"no picture")
    result = run_cli("bench", "check", spoilt)
    assert result.exit_code == 2 and "1.png" in result.output


def test_fetch_gets_what_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get(edition: str, out: Path | None, *, say: Any) -> Path:
        asked.append((edition, out))
        return out or tmp_path

    monkeypatch.setattr(commands, "get", get)
    result = run_cli("bench", "fetch", "toybox", "--out", tmp_path / "here")
    assert result.exit_code == 0 and asked == [("toybox", tmp_path / "here")]
    assert "--edition" in result.output


# Wrong input


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--entry", "customvdeo"], ("no entry 'customvdeo'", "did you mean 'customvideo'")),
        (["--entry", "mine=nowhere.toml"], ("'mine'", "nowhere.toml")),
        (["--set", "method=dreambooht"], ("no method 'dreambooht'",)),
        (["--set", "stepz=2"], ("no setting 'stepz'", "did you mean 'steps'")),
        (["--set", "backbone=no-such"], ("no-such",)),
        (["--edition", "toybocks"], ("no edition or folder 'toybocks'", "toybox")),
        (["--only", "ida+nobody"], ("no combination 'ida+nobody'",)),
        (["--only", "4"], ("Nothing", "is left")),
        (["--device", "quantum"], ("quantum",)),
    ],
    ids=str,
)
def test_what_a_run_refuses(
    flags: list[str], parts: tuple[str, ...], plan: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = complaint(run_cli("bench", "run", "--plan", plan, "--out", out, *flags))
    assert all(part in said for part in parts), said
    assert not out.exists()


def test_a_single_subject_is_refused(plan: Path, toys: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(toys / "rex", alone / "rex")
    result = run_cli("bench", "run", "--plan", plan, "--edition", alone, "--out", tmp_path / "out")
    said = complaint(result)
    assert "alone" in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("manifest", "parts"),
    [
        ({"images": [{"file": "9.png"}]}, ("9.png' of subject", "is missing")),
        ({"names": ("rex", "rex")}, ("2 subjects are called 'rex'", "its own name")),
        ({"together": ("rex",)}, ("The combination 'rex' has 1 subject", "give it 2 to 4")),
        ({"together": ("rex", "rexx")}, ("unknown subject 'rexx'", "did you mean 'rex'")),
    ],
    ids=["missing file", "duplicate name", "one subject", "unknown subject"],
)
def test_a_wrong_manifest_is_one_sentence(
    manifest: dict[str, Any], parts: tuple[str, ...], plan: Path, toys: Path, tmp_path: Path
) -> None:
    edition = Path(shutil.copytree(toys, tmp_path / "toys"))
    names = manifest.get("names", (CATS[0], "rex"))
    nouns = {CATS[0]: "cat", "rex": "dog"}
    subjects: list[dict[str, Any]] = [{"name": name, "category": nouns[name]} for name in names]
    subjects[-1] |= {"images": manifest["images"]} if "images" in manifest else {}
    together = manifest.get("together", names)
    prompt = " and ".join(f"a <{name}> {nouns.get(name, 'dog')}" for name in together)
    told = {
        **{"name": "mine", "version": "1", "subjects": subjects},
        "combinations": [{"subjects": together, "prompts": [prompt]}],
    }
    (edition / "customstudio.json").write_text(json.dumps(told))
    out = tmp_path / "out"
    said = complaint(run_cli("bench", "run", "--plan", plan, "--edition", edition, "--out", out))
    assert all(part in said for part in parts), said
    assert not out.exists()


def test_without_an_encoder_nothing_is_trained_that_cannot_be_scored(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = f"clip={tmp_path / 'nowhere'}"
    monkeypatch.setattr(kit, "encoders_for", partial(kit.encoders_for, clip=missing))
    out = tmp_path / "out"
    said = complaint(run_cli("bench", "run", "--plan", plan, "--out", out))
    assert "nowhere" in said and not out.exists()


def test_results_of_another_version_or_edition_are_not_touched(
    copied: Path, plan: Path, toys: Path, tmp_path: Path
) -> None:
    more = Path(shutil.copytree(toys, tmp_path / "toys"))
    shutil.copyfile(more / "rex" / "1.png", more / "rex" / "3.png")
    before = contents(copied)
    other = ["--edition", more]
    said = complaint(run_cli("bench", "run", "--plan", plan, "--out", copied, *other))
    assert str(copied) in said and "another edition" in said
    assert contents(copied) == before
    mark = copied / "bench.json"
    mark.write_text(json.dumps({**told(mark), "version": 99}))
    before = contents(copied)
    for verb in (["run", "--plan", plan, "--out", copied], ["score", copied], ["table", copied]):
        said = complaint(run_cli("bench", *verb))
        assert "version 99" in said
    assert contents(copied) == before


def test_a_folder_that_is_no_benchmark_is_not_touched(plan: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "no benchmark" in complaint(run_cli("bench", "run", "--plan", plan, "--out", tmp_path))
    file = tmp_path / "thesis.txt"
    assert "is a file" in complaint(run_cli("bench", "run", "--plan", plan, "--out", file))
    below = complaint(run_cli("bench", "run", "--plan", plan, "--out", file / "results"))
    assert "choose another" in below
    for verb in ("score", "table"):
        assert "bench run" in complaint(run_cli("bench", verb, tmp_path / "nowhere"))
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_an_unwritable_place_is_noticed_before_anything_is_loaded(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    monkeypatch.setattr(commands, "Kit", None)
    said = complaint(run_cli("bench", "run", "--plan", plan, "--out", tmp_path / "out"))
    assert "permission is denied" in said and not (tmp_path / "out").exists()


def test_ray_has_to_be_there(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    flags = ["--ray", "auto", "--out", tmp_path / "out"]
    said = complaint(run_cli("bench", "run", "--plan", plan, *flags))
    assert "Ray is not installed" in said and "customvideo[ray]" in said
    assert not (tmp_path / "out").exists()


def test_photos_that_are_not_there_are_said_to_be_missing(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = ["--edition", "photos", "--out", tmp_path / "out"]
    said = complaint(run_cli("bench", "run", "--plan", plan, *flags))
    assert "bench fetch photos" in said and not (tmp_path / "out").exists()
