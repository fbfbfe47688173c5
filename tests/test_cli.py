"""The command line: its verbs and flags, its manners, and one whole run through it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup, TyperOption

import customvideo
from customvideo import runs
from customvideo.cli import app
from customvideo.training.interrupt import Interrupted
from customvideo.video import Video
from tests.evaluation.conftest import tiny_clip, tiny_dino  # noqa: F401
from tests.surroundings import contents, run_cli, sampled, train, write_pair

FLAGS = {
    "train": "subject out recipe set backbone method seed resume segmenter fit dry-run json device"
    " processes",
    "generate": "adapter out seed negative steps guidance strength regions fast frames size"
    " backbone attention upscale device",
    "evaluate": "adapter subject prompt out seed backbone clip dino finder segmenter device"
    " recommend strength",
    "export": "to out backbone rank dtype verify words-only device",
    "import": "backbone out device",
    "prepare": "subject out backbone segmenter clip captioner device",
    "sites": "subject backbone scenes top out seed segmenter device",
    "demo": "out seed device",
    "batch": "out set ray retry-failed device",
    "doctor": "json",
    "merge": "out how rename captions report backbone device",
    "add": "to out replay set backbone seed segmenter resume device",
    "remove": "from out",
    "jobs": "pause resume stop log",
    "web": "workspace host port token model name",
    "toybox pretrain": "work export set edition device",
    "toybox studio": "out",
    "toybox sheet": "out count seed",
    "bench run": "out edition plan entry set pairs only prompts seeds device ray retry-failed",
    "bench search": "out method factor plan edition set pairs prompts seeds device ray"
    " retry-failed",
    "bench score": "device",
    "bench probe": "videos entry device",
    "bench table": "out ours max-mb",
    "bench check": "",
    "bench fetch": "out",
    "study new": "videos prompts subject bench method items per-rater raters title contact seed",
    "study serve": "host port database proxy root-path",
    "study close": "database",
    "study tally": "out database",
    "study power": "methods prompts per-rater rate spread raters trials seed",
}
"""A change here is a change of the promise made to users: say so in the changelog."""
MOST_FLAGS = 15


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_pair(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, pair: list[str], tiny_zeroscope: Path
) -> tuple[Path, str]:
    """The folder of a finished run, and what the command line said; read-only by agreement."""
    out = tmp_path_factory.mktemp("runs") / "first"
    result = train(out, pair, tiny_zeroscope)
    assert result.exit_code == 0, result.output
    return out, result.output


def commands() -> dict[str, Any]:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    found: dict[str, Any] = {}
    for name, command in root.commands.items():
        if isinstance(command, TyperGroup):
            found |= {f"{name} {verb}": inner for verb, inner in command.commands.items()}
        else:
            found[name] = command
    return found


def test_the_verbs_and_flags_are_these() -> None:
    seen = {}
    for name, command in commands().items():
        options = [part for part in command.params if isinstance(part, TyperOption)]
        flags = {option.opts[0].removeprefix("--") for option in options}
        seen[name] = flags
        assert len(flags) <= MOST_FLAGS
        assert command.help, f"{name} does not say what it does"
        assert all(option.help for option in options), f"a flag of {name} is not explained"
    assert seen == {name: set(flags.split()) for name, flags in FLAGS.items()}


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_verb_it_shows_help(arguments: list[str]) -> None:
    result = run_cli(*arguments)
    assert result.exit_code == 0
    for verb in ("train", "generate", "evaluate", "demo", "toybox", "bench"):
        assert verb in result.stdout


def test_it_tells_its_version() -> None:
    assert run_cli("--version").stdout == f"customvideo {customvideo.__version__}\n"


def test_it_runs_as_a_module() -> None:
    called = [sys.executable, "-m", "customvideo", "--version"]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[-1]) == (0, customvideo.__version__)


def test_starting_it_imports_nothing_heavy() -> None:
    script = (
        "import sys, customvideo.cli;"
        "print(sorted({'torch', 'numpy', 'diffusers', 'transformers', 'cv2'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"


def test_train_writes_what_others_rely_on(run: tuple[Path, str]) -> None:
    out, said = run
    assert {path.name for path in out.iterdir()} == {
        *("adapter.safetensors", "checkpoints", "losses.jsonl", "masks", "recipe.toml"),
        *("environment.json", "report.html"),
    }
    assert {"2", "4"} <= {path.name for path in (out / "checkpoints").iterdir()}
    coverage = json.loads((out / "masks" / "coverage.json").read_text(encoding="utf-8"))
    assert coverage.keys() == {"tom", "rex"} and 0.3 < coverage["tom"]["0.png"] < 0.6
    assert (out / "masks" / "tom" / "0.png").is_file()
    recipe = customvideo.load_recipe(out / "recipe.toml")
    assert recipe.steps == 4 and recipe.subjects["rex"].category == "dog"
    assert "customvideo generate" in said


def test_the_report_of_a_run_stands_alone(run: tuple[Path, str]) -> None:
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert "&lt;tom&gt;" in page and "<svg" in page
    assert page.count("data:image/") >= 8 + 6
    assert "http://" not in page.replace("http://www.w3.org/", "") and 'src="/' not in page


def test_generate_finds_the_backbone_of_its_adapter(run: tuple[Path, str], tmp_path: Path) -> None:
    made = []
    for name in ("one.png", "two.png"):
        result = run_cli(
            *("generate", "a <tom> cat and a <rex> dog", "--out", tmp_path / name, "--seed", "7"),
            *("--adapter", run[0] / "adapter.safetensors", *sampled()),
        )
        assert result.exit_code == 0, result.output
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_several_prompts_and_seeds_make_numbered_files(
    run: tuple[Path, str], tmp_path: Path
) -> None:
    result = run_cli(
        *("generate", "a <tom> cat", "a <rex> dog", "--seed", "1", "--seed", "2", *sampled()),
        *("--adapter", run[0] / "adapter.safetensors", "--out", tmp_path / "v.gif", "--attention"),
    )
    assert result.exit_code == 0, result.output
    films = [f"v-{index}.gif" for index in range(1, 5)]
    drawn = [name.replace(".gif", "-attention.gif") for name in films]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(films + drawn)
    videos = [Video.load(tmp_path / name) for name in films]
    assert all(len(video) == 2 and video.size == (64, 96) for video in videos)
    assert len({video.frames.tobytes() for video in videos}) == 4


def test_generate_without_an_adapter_asks_the_base_model(
    tiny_zeroscope: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "base.mp4"
    result = run_cli("generate", "a cat", "--out", out, "--backbone", tiny_zeroscope, *sampled())
    assert result.exit_code == 0, result.output
    assert len(Video.load(out)) == 2


def test_evaluate_writes_scores(
    run: tuple[Path, str],
    pair: list[str],
    tiny_clip: Path,  # noqa: F811
    tiny_dino: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    result = run_cli(
        *("evaluate", "--adapter", run[0] / "adapter.safetensors", *pair),
        *("--prompt", "a <tom> cat", "--prompt", "a <tom> cat and a <rex> dog"),
        *("--out", tmp_path / "metrics.json"),
        *("--clip", f"clip={tiny_clip}", "--dino", f"dino={tiny_dino}"),
    )
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert {"clip_t", "clip_i", "dino_i", "t_cons"} <= scores.keys()
    assert [row["subject"] for row in scores["rows"]] == ["tom", "tom", "rex"]


def test_a_resumed_run_equals_an_uninterrupted_one(
    run: tuple[Path, str], pair: list[str], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert train(out, pair, tiny_zeroscope, "--set", "steps=2").exit_code == 0
    # The run's own recipe says the rest.
    result = run_cli("train", "--out", out, "--resume", "--set", "steps=4")
    assert result.exit_code == 0, result.output
    name = "adapter.safetensors"
    assert (out / name).read_bytes() == (run[0] / name).read_bytes()
    assert customvideo.load_recipe(out / "recipe.toml").steps == 4


def test_previews_are_kept_and_shown(pair: list[str], tiny_zeroscope: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(out, pair, tiny_zeroscope, "--set", "preview_every=2")
    assert result.exit_code == 0, result.output
    assert [path.name for path in sorted((out / "previews").iterdir())] == [
        *("000002-attention.png", "000002.mp4"),
        *("000004-attention.png", "000004.mp4"),
    ]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:video/mp4") == 2


def test_one_seed_one_adapter(run: tuple[Path, str], pair: list[str], tmp_path: Path) -> None:
    """A run can be made again from its recipe alone, bit for bit."""
    out = tmp_path / "again"
    result = run_cli("train", "--recipe", run[0] / "recipe.toml", "--out", out)
    assert result.exit_code == 0, result.output
    first, second = contents(run[0]), contents(out)
    for name in ("adapter.safetensors", "recipe.toml", "masks/coverage.json"):
        assert first[name] == second[name]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Interrupted("Stopped after step 3; add --resume to go on."), 130, "add --resume"),
        (KeyboardInterrupt(), 130, "Run it again"),
    ],
)
def test_an_interruption_says_how_to_go_on(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(runs, "train", stop)
    result = run_cli("train", "--out", tmp_path)
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.output


def test_notes_on_prompts_are_plain_and_come_once(run: tuple[Path, str], tmp_path: Path) -> None:
    result = run_cli(
        *("generate", "a cat", "--seed", "1", "--seed", "2", *sampled()),
        *("--adapter", run[0] / "adapter.safetensors", "--out", tmp_path / "v.png"),
    )
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 2
    assert "licence of" in notes[0] and "not stated" in notes[0]
    assert "has no learned word" in notes[1] and "<tom>, <rex>" in notes[1]
