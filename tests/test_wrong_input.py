"""Everything a person can get wrong, through the command line.

Each case ends in one clear sentence on standard error that names the thing and the way out, with
exit code 2, no traceback, nothing half-written, and earlier results as they were.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file
from typer.testing import Result

from customvideo.adapters.adapter import Adapter
from customvideo.runs import learning
from tests.surroundings import contents, run_cli, sampled, sets, train, write_pair, write_photos
from tests.tiny import build_tiny_zeroscope

Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_pair(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pair: list[str], tiny_zeroscope: Path) -> Path:
    """A finished run's folder; read-only by agreement."""
    out = tmp_path_factory.mktemp("runs") / "first"
    result = train(out, pair, tiny_zeroscope)
    assert result.exit_code == 0, result.output
    return out


def complaint(result: Result) -> str:
    """The one sentence a person reads."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("customvideo: ")]
    assert len(said) == 1, result.stderr
    assert result.stderr.rstrip().endswith(said[0]), "something was said after it"
    assert said[0].endswith((".", "?")), "not a whole sentence"
    return said[0]


def mentions(sentence: str, *parts: str | Path) -> None:
    for part in parts:
        assert str(part) in sentence


def test_a_path_that_no_file_system_takes(pair: list[str]) -> None:
    long = "a" * 5_000
    for asked in (
        ["train", *pair, "--out", long],
        ["train", "--subject", f"tom:cat={long}", "--out", "x"],
        ["train", *pair, "--backbone", long, "--out", "x"],
        ["generate", "a cat", "--adapter", long, "--out", "x.mp4"],
        ["batch", long, "--out", "x"],
    ):
        assert len(complaint(run_cli(*asked))) < 1_500
    assert not Path("x").exists()


# Subjects


def test_a_missing_folder(tiny_zeroscope: Path, tmp_path: Path) -> None:
    missing, out = tmp_path / "nowhere", tmp_path / "run"
    said = complaint(train(out, ["--subject", f"tom:cat={missing}"], tiny_zeroscope))
    mentions(said, missing, "does not exist", "check the path")
    assert not out.exists()


def test_no_subject(tiny_zeroscope: Path, tmp_path: Path) -> None:
    said = complaint(train(tmp_path / "run", [], tiny_zeroscope))
    mentions(said, "No subject", "--subject tom:cat=photos/tom")


@pytest.mark.parametrize("text", ["tom", "tom:cat", "=photos", "tom:=photos"])
def test_a_subject_in_another_form(text: str, tiny_zeroscope: Path, tmp_path: Path) -> None:
    said = complaint(train(tmp_path / "run", ["--subject", text], tiny_zeroscope))
    mentions(said, text, "--subject tom:cat=photos/tom")


def test_a_subject_without_category(tiny_zeroscope: Path, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "tom")
    said = complaint(train(tmp_path / "run", ["--subject", f"tom={folder}"], tiny_zeroscope))
    mentions(said, "'tom' has no category", "NAME:CATEGORY=FOLDER")


def truncate(folder: Path) -> None:
    noise = Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3))
    noise.save(folder / "0.jpg")
    (folder / "0.png").unlink()
    data = (folder / "0.jpg").read_bytes()
    (folder / "0.jpg").write_bytes(data[: len(data) // 2])


def write_text_as_picture(folder: Path) -> None:
    (folder / "0.png").unlink()
    (folder / "0.jpg").write_text("not a picture")


def shrink_to_a_pixel(folder: Path) -> None:
    Image.new("RGB", (1, 1)).save(folder / "0.png")


def rename_mask(folder: Path) -> None:
    (folder / "masks" / "0.png").rename(folder / "masks" / "other.png")


def resize_mask(folder: Path) -> None:
    Image.new("L", (20, 20), 255).save(folder / "masks" / "0.png")


def empty_mask(folder: Path) -> None:
    Image.new("L", (56, 48), 0).save(folder / "masks" / "0.png")


def fill_mask(folder: Path) -> None:
    Image.new("L", (56, 48), 255).save(folder / "masks" / "0.png")


def remove_pictures(folder: Path) -> None:
    shutil.rmtree(folder / "masks")
    for path in folder.glob("*.png"):
        path.unlink()
    (folder / "notes.txt").write_text("no picture here")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (remove_pictures, ("holds no picture of subject 'tom'", ".txt", "put at least one")),
        (truncate, ("0.jpg",)),
        (write_text_as_picture, ("0.jpg",)),
        (shrink_to_a_pixel, ("0.png", "1x1", "at least 32x32")),
        (rename_mask, ("other.png", "belongs to no picture", "name it like its picture")),
        (resize_mask, ("masks", "0.png")),
        (empty_mask, ("masks", "0.png", "is empty")),
        (fill_mask, ("masks", "0.png", "covers the whole picture")),
    ],
)
def test_photos_and_masks_that_cannot_be_used(
    spoil: Spoil, named: tuple[str, ...], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    folder, out = write_photos(tmp_path / "tom"), tmp_path / "run"
    spoil(folder)
    said = complaint(train(out, ["--subject", f"tom:cat={folder}"], tiny_zeroscope))
    mentions(said, *named)
    assert not out.exists()


def test_what_is_quick_to_check_comes_first(
    pair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders, photos, the segmenter's name and the place, before a model is loaded."""

    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(learning, "load_backbone", load)
    out, folder = tmp_path / "run", write_photos(tmp_path / "tom")
    missing = ["--subject", f"tom:cat={tmp_path / 'nowhere'}"]
    mentions(complaint(run_cli("train", *missing, "--out", out)), "does not exist")
    (folder / "9.jpg").write_text("not a picture")
    spoilt = ["--subject", f"tom:cat={folder}"]
    mentions(complaint(run_cli("train", *spoilt, "--out", out)), "9.jpg")
    said = complaint(run_cli("train", *pair, "--out", out, "--segmenter", "grabcat"))
    mentions(said, "grabcat")
    _Disk(monkeypatch, errno.ENOSPC)
    mentions(complaint(run_cli("train", *pair, "--out", out / "deep")), out, "disk is full")
    assert not out.exists()


# Words


def test_two_subjects_with_one_word(tiny_zeroscope: Path, tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "tom")
    twice = ["--subject", f"tom:cat={folder}", "--subject", f"tom:dog={folder}"]
    said = complaint(train(tmp_path / "run", twice, tiny_zeroscope))
    mentions(said, "Two subjects share the word '<tom>'", "its own name")


@pytest.mark.parametrize("name", ["Tom", "tom cat", "<tom>", "1st", "tom!"])
def test_a_word_that_would_not_survive_lower_casing_or_splitting(
    name: str, tiny_zeroscope: Path, tmp_path: Path
) -> None:
    folder = write_photos(tmp_path / "tom")
    said = complaint(train(tmp_path / "run", ["--subject", f"{name}:cat={folder}"], tiny_zeroscope))
    mentions(said, f"'{name}' cannot name a subject", "lower-case")


def test_a_word_the_vocabulary_has_already(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    model = build_tiny_zeroscope(tmp_path / "model")
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    tokenizer.add_tokens(["<tom>"])
    tokenizer.save_pretrained(model / "tokenizer")
    folder, out = write_photos(tmp_path / "tom"), tmp_path / "run"
    said = complaint(train(out, ["--subject", f"tom:cat={folder}"], model))
    mentions(said, "'<tom>' is already", "another name")
    assert not out.exists()


def test_a_word_that_is_not_one_token_once_added(
    tiny_zeroscope: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import CLIPTokenizer

    # A tokenizer that takes no new token goes on spelling the word in pieces.
    monkeypatch.setattr(CLIPTokenizer, "add_tokens", lambda *_, **__: 0)
    folder, out = write_photos(tmp_path / "tom"), tmp_path / "run"
    said = complaint(train(out, ["--subject", f"tom:cat={folder}"], tiny_zeroscope))
    mentions(said, "'<tom>'", "one token", "another name")
    assert not out.exists()


# Recipes, backbones, adapters


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("stepz=3", ("'stepz'", "did you mean 'steps'")),
        ("method_options.nuu=1", ("'method_options.nuu'", "did you mean 'method_options.nu'")),
        ("steps=none", ("steps", "'none'")),
        ("steps=0", ("steps", "0")),
        ("seed=99999999999999999999", ("seed", "less than or equal to")),
        ("prior_prompt=hello {cat}", ("prior_prompt", "{category}")),
        ("steps", ("'steps'", "write key=value")),
        ("method=custom", ("no method 'custom'", "customvideo")),
        ("masks.segmenter=grabcat", ("'grabcat'", "grabcut")),
    ],
)
def test_a_setting_that_cannot_be(
    setting: str, named: tuple[str, ...], pair: list[str], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    mentions(complaint(train(out, pair, tiny_zeroscope, "--set", setting)), *named)
    assert not out.exists()


def test_an_unknown_key_in_a_recipe_file(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("stepz = 100\n")
    said = complaint(run_cli("train", "--out", tmp_path / "run", "--recipe", tmp_path / "my.toml"))
    mentions(said, tmp_path / "my.toml", "'stepz'", "did you mean 'steps'?")


@pytest.mark.parametrize(("name", "text"), [("my.toml", "steps = = 3"), ("none.toml", None)])
def test_a_recipe_that_cannot_be_read(name: str, text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    said = complaint(run_cli("train", "--out", tmp_path / "run", "--recipe", tmp_path / name))
    mentions(said, tmp_path / name)


@pytest.mark.parametrize("name", ["zeroscop", "./nowhere", "/etc"])
def test_a_backbone_that_is_none(name: str, pair: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    mentions(complaint(run_cli("train", *pair, "--out", out, "--backbone", name)), name)
    assert not out.exists()


def test_an_adapter_for_another_backbone(run: Path, tmp_path: Path) -> None:
    other = build_tiny_zeroscope(tmp_path / "other", seed=1)
    out = tmp_path / "video.mp4"
    said = complaint(
        run_cli(
            *("generate", "a <tom> cat", "--adapter", run / "adapter.safetensors"),
            *("--backbone", other, "--out", out, *sampled()),
        )
    )
    mentions(said, "made for the backbone 'tiny-zeroscope'", "'other'", "give that very backbone")
    assert not out.exists()


def test_an_adapter_whose_backbone_is_a_folder_elsewhere(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "adapter.safetensors", tmp_path / "moved.safetensors")
    said = complaint(
        run_cli(
            *("generate", "a <tom> cat", "--adapter", tmp_path / "moved.safetensors"),
            *("--out", tmp_path / "video.mp4"),
        )
    )
    mentions(said, "moved.safetensors", "'tiny-zeroscope'", "--backbone")


@pytest.mark.parametrize("kind", ["missing", "text", "other weights", "half"])
def test_a_file_that_is_no_adapter(kind: str, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "adapter.safetensors"
    if kind == "text":
        file.write_text("hello")
    elif kind == "other weights":
        weights = Adapter.load(run / "adapter.safetensors").state_dict()
        save_file({"value": next(iter(weights.values())).contiguous()}, file)
    elif kind == "half":
        data = (run / "adapter.safetensors").read_bytes()
        file.write_bytes(data[: len(data) // 2])
    said = complaint(
        run_cli("generate", "a <tom> cat", "--adapter", file, "--out", tmp_path / "video.mp4")
    )
    mentions(said, file)
    assert not (tmp_path / "video.mp4").exists()


# Videos and scores


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--size", "big"], ("'big'", "320x576")),
        (["--size", "7x9"], ("7",)),
        (["--steps", "0"], ("num_steps", "0")),
        (["--frames", "-1"], ("frames", "-1")),
        (["--attention"], ("--attention", "--adapter")),
        (["--device", "gpu"], ("'gpu'", "cuda")),
    ],
)
def test_videos_that_cannot_be_made(
    flags: list[str], named: tuple[str, ...], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    out = tmp_path / "video.mp4"
    result = run_cli("generate", "a cat", "--out", out, "--backbone", tiny_zeroscope, *flags)
    mentions(complaint(result), *named)
    assert not out.exists()


def test_a_video_in_an_unknown_format(tmp_path: Path) -> None:
    said = complaint(run_cli("generate", "a cat", "--out", tmp_path / "video.avi"))
    mentions(said, "video.avi", ".mp4, .gif, .png")


@pytest.mark.parametrize("prompt", ["a <tim> cat", "a <tom> cat and a <tim> dog"])
def test_scores_of_a_prompt_about_a_stranger(
    prompt: str, run: Path, pair: list[str], tmp_path: Path
) -> None:
    said = complaint(
        run_cli(
            *("evaluate", "--adapter", run / "adapter.safetensors", *pair, "--prompt", prompt),
            *("--out", tmp_path / "metrics.json"),
        )
    )
    mentions(said, prompt, "<tim>", "--subject")
    assert not (tmp_path / "metrics.json").exists()


def test_scores_of_a_subject_the_adapter_does_not_know(run: Path, tmp_path: Path) -> None:
    said = complaint(
        run_cli(
            *("evaluate", "--adapter", run / "adapter.safetensors", "--out", tmp_path / "m.json"),
            *("--subject", f"tim:cat={write_photos(tmp_path / 'tim')}"),
        )
    )
    mentions(said, "no word '<tim>'", "<tom>, <rex>")


def test_scores_by_an_unknown_encoder(run: Path, pair: list[str], tmp_path: Path) -> None:
    said = complaint(
        run_cli(
            *("evaluate", "--adapter", run / "adapter.safetensors", *pair, "--clip", "klip"),
            *("--out", tmp_path / "m.json"),
        )
    )
    mentions(said, "'klip'", "'clip'")


# Places


def test_a_folder_that_holds_a_run_is_not_overwritten(
    run: Path, pair: list[str], tiny_zeroscope: Path
) -> None:
    before = contents(run)
    mentions(complaint(train(run, pair, tiny_zeroscope)), run, "--resume", "another --out")
    assert contents(run) == before


def test_a_folder_with_other_things_in_it_is_left_alone(
    pair: list[str], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    mentions(complaint(train(tmp_path, pair, tiny_zeroscope)), tmp_path, "not empty", "--out")
    assert list(contents(tmp_path)) == ["thesis.txt"]


@pytest.mark.parametrize("begun", [False, True])
def test_nothing_to_resume(
    begun: bool, pair: list[str], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    if begun:
        (out / "checkpoints" / "2").mkdir(parents=True)
    said = complaint(train(out, pair, tiny_zeroscope, "--resume"))
    mentions(said, "nothing to resume", out, "leave out --resume")
    assert not contents(tmp_path)


@pytest.mark.parametrize("change", ["batch_size=2", "seed=5", "nu=0.5"])
def test_a_resume_of_another_run(
    change: str, run: Path, pair: list[str], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    before = contents(out)
    more = ["--resume", "--set", "steps=6", "--set", change]
    said = complaint(train(out, pair, tiny_zeroscope, *more))
    mentions(said, "started differently", change.split("=")[0])
    assert contents(out) == before


def test_other_photos_on_resume(run: Path, tiny_zeroscope: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    before = contents(out)
    tom, rex = write_photos(tmp_path / "tom", 1), write_photos(tmp_path / "rex", 9)
    subjects = ["--subject", f"tom:cat={tom}", "--subject", f"rex:dog={rex}"]
    said = complaint(train(out, subjects, tiny_zeroscope, "--resume", "--set", "steps=6"))
    mentions(said, "'rex'", "photos")
    assert contents(out) == before


@pytest.mark.parametrize("verb", ["train", "generate", "evaluate"])
def test_a_place_below_a_file(
    verb: str, run: Path, pair: list[str], tiny_zeroscope: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("hello")
    below, adapter = tmp_path / "file" / "run", run / "adapter.safetensors"
    flags = {
        "train": [*pair, "--out", below, "--backbone", tiny_zeroscope, *sets()],
        "generate": ["a <tom> cat", "--adapter", adapter, "--out", below / "v.mp4", *sampled()],
        "evaluate": [*pair, "--adapter", adapter, "--out", below / "m.json"],
    }[verb]
    mentions(complaint(run_cli(verb, *flags)), tmp_path / "file", "choose another")
    assert (tmp_path / "file").read_text() == "hello"


class _Disk:
    """Stands before the calls that put files in place and fails from the n-th on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, spared: int = 0) -> None:
        self.code, self.spared = code, spared
        for name in ("replace", "fsync"):
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))

    def _guarded(self, call: Callable[..., None]) -> Callable[..., None]:
        def guarded(*arguments: object) -> None:
            if self.spared <= 0:
                raise OSError(self.code, os.strerror(self.code))
            self.spared -= 1
            call(*arguments)

        return guarded


FULL_OR_FORBIDDEN = [
    (errno.ENOSPC, "disk is full"),
    (errno.EACCES, "permission is denied"),
    (errno.EROFS, "read-only"),
]


@pytest.mark.parametrize(("code", "named"), FULL_OR_FORBIDDEN)
def test_training_where_nothing_can_be_written(
    code: int,
    named: str,
    pair: list[str],
    tiny_zeroscope: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    _Disk(monkeypatch, code)
    mentions(complaint(train(out, pair, tiny_zeroscope)), out, named)
    assert not out.exists()


def test_a_disk_that_fills_up_while_training(
    pair: list[str], tiny_zeroscope: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first checkpoint fits, the second does not: the first stays whole and can be resumed."""
    out = tmp_path / "run"
    first = out / "checkpoints" / "BEST"
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if first.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        said = complaint(train(out, pair, tiny_zeroscope))
    mentions(said, out, "disk is full")
    kept = [path.name for path in (out / "checkpoints").iterdir() if path.is_dir()]
    assert kept == ["2"]
    assert not [path for path in out.rglob("*") if "partial" in path.name]
    assert not (out / "adapter.safetensors").exists()
    assert run_cli("train", "--out", out, "--resume").exit_code == 0


@pytest.mark.parametrize(("code", "named"), FULL_OR_FORBIDDEN)
def test_a_video_where_nothing_can_be_written(
    code: int, named: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "video.mp4"
    out.write_text("an earlier video")
    _Disk(monkeypatch, code)
    said = complaint(
        run_cli(
            *("generate", "a <tom> cat", "--adapter", run / "adapter.safetensors"),
            *("--out", out, *sampled()),
        )
    )
    mentions(said, out, named)
    assert list(contents(tmp_path)) == ["video.mp4"]
    assert out.read_text() == "an earlier video"


# What is only worth a note


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a cat", ("has no learned word", "<tom>")),
        ("a <tom> cat and a <tim> dog", ("Nobody learned <tim>",)),
    ],
)
def test_prompts_worth_a_note(
    prompt: str, named: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    adapter, out = run / "adapter.safetensors", tmp_path / "v.png"
    result = run_cli("generate", prompt, "--adapter", adapter, "--out", out, *sampled())
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    # The other one is the model's licence.
    (note,) = (line for line in notes if "licence" not in line)
    mentions(note, *named)
    assert out.is_file()
