"""What the end-to-end tests share: photo folders, the command line in this process, quick runs.

It holds no test. The runs are on the tiny random model of `tests.tiny`, so they show that
everything fits together and say nothing about how videos look.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner, Result

from customvideo.cli import app
from tests.cast import make_subject

QUICK = {
    "steps": "4",
    "batch_size": "1",
    "pool": "2",
    "held_out": "1",
    "checkpoint_every": "2",
    "canvas": "[64, 96]",
    "compose": "paste",
    "prior_weight": "0.0",
    "sampling.num_steps": "2",
    "sampling.frames": "2",
    "sampling.height": "64",
    "sampling.width": "96",
}
"""Recipe keys for a run of a second or two on the tiny model."""


def run_cli(*arguments: str | Path) -> Result:
    """What the command line does with `arguments`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def sets(**changes: str) -> list[str]:
    """`QUICK` with `changes`, as `--set` arguments; an underscore stands for itself."""
    keys = QUICK | changes
    return [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]


def sampled() -> list[str]:
    """The flags that make `generate` quick on the tiny model."""
    return ["--steps", "2", "--frames", "2", "--size", "64x96"]


def write_photos(folder: Path, seed: int = 1, count: int = 2, *, masks: bool = True) -> Path:
    """A subject's folder: `count` pictures of 56x48, with or without mask files."""
    subject = make_subject("any", "cat", seed, photos=count)
    folder.mkdir(parents=True)
    if masks:
        (folder / "masks").mkdir()
    for index, (image, mask) in enumerate(zip(subject.images, subject.masks, strict=True)):
        Image.fromarray(image).save(folder / f"{index}.png")
        if masks:
            Image.fromarray((mask * 255).astype("uint8")).save(folder / "masks" / f"{index}.png")
    return folder


def write_pair(folder: Path) -> list[str]:
    """The photos of Tom the cat and Rex the dog in `folder`, as `--subject` arguments."""
    tom, rex = write_photos(folder / "tom", 1), write_photos(folder / "rex", 2)
    return ["--subject", f"tom:cat={tom}", "--subject", f"rex:dog={rex}"]


def train(out: Path, subjects: Sequence[str], backbone: Path, *more: str | Path) -> Result:
    """A quick `customvideo train` on the model in `backbone`."""
    return run_cli("train", *subjects, "--out", out, "--backbone", backbone, *sets(), *more)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
