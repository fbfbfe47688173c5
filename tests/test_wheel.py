"""The wheel, installed where only its dependencies are: it carries all that is needed to run."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an empty environment into which the wheel was installed."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (place / "dist").glob("*.whl")
    venv.create(place / "venv", with_pip=False, symlinks=os.name != "nt")
    binaries = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    _lend_dependencies(place / "venv")
    return binaries / "python"


def _lend_dependencies(environment: Path) -> None:
    """Let the environment see the installed packages, behind its own and without our source.

    A .pth file adds the folder itself and does not read the .pth files in it, among them the one
    that makes this checkout importable.
    """
    # lib64 is often a second name of lib.
    packages = sorted(environment.glob("[Ll]ib*/**/site-packages"))[0]
    source = next(Path(entry) for entry in sys.path if entry.endswith("site-packages"))
    (packages / "lent.pth").write_text(f"{source}\n", encoding="utf-8")


def _checked(command: list[str], folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_it_runs_from_its_own_place(python: Path, tmp_path: Path) -> None:
    script = "import customvideo; print(customvideo.__file__)"
    said = _checked([str(python), "-c", script], tmp_path)
    assert Path(said.strip()).is_relative_to(python.parents[1])


def test_it_carries_recipes_and_templates(python: Path) -> None:
    package = sorted(python.parents[1].glob("[Ll]ib*/**/site-packages/customvideo"))[0]
    assert list((package / "recipes").glob("customvideo-*.toml"))
    assert list((package / "templates").glob("*.j2"))
    assert (package / "py.typed").is_file()


def test_its_command_shows_help(python: Path, tmp_path: Path) -> None:
    said = _checked([str(python.parent / "customvideo"), "--help"], tmp_path)
    assert "train" in said and "demo" in said


def test_the_demo_runs_from_it(python: Path, tmp_path: Path) -> None:
    """All of it but the length of the training: weights, recipes, judges, report."""
    script = """
from pathlib import Path
from customvideo import demo
from customvideo.config import apply_sets, default_recipe
short = apply_sets(default_recipe(), ["steps=2", "pool=4", "held_out=0", "num_steps=2"])
demo.run(Path("demo"), say=print, recipe=short)
"""
    _checked([str(python), "-c", script], tmp_path)
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000


def test_its_command_makes_a_video(python: Path, tmp_path: Path) -> None:
    command = [str(python.parent / "customvideo"), "generate", "a cat on the beach"]
    _checked([*command, "--steps", "2", "--out", "video.png"], tmp_path)
    assert (tmp_path / "video.png").stat().st_size > 1000
