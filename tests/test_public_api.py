"""The public names: which they are, that they resolve, and what the wheel carries."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import customvideo

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "Adapter",
    "Backbone",
    "CustomVideo",
    "CustomVideoConfig",
    "CustomVideoError",
    "Encoders",
    "Method",
    "Prompt",
    "Recipe",
    "SamplingConfig",
    "Scene",
    "Scores",
    "Subject",
    "Trainer",
    "TrainerConfig",
    "UserError",
    "Video",
    "__version__",
    "compose",
    "customize",
    "denoise",
    "evaluate",
    "generate",
    "generate_with_attention",
    "load_backbone",
    "load_recipe",
    "load_subjects",
    "side_by_side",
    "watch",
}
"""A change here is a change of the promise made to users: say so in the changelog."""


def test_the_public_names_are_these() -> None:
    assert set(customvideo.__all__) == PUBLIC
    assert set(dir(customvideo)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(customvideo, name)
    if name != "__version__":
        assert value.__doc__, f"{name} has no docstring"
        assert getattr(customvideo, name) is value


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'genrate'"):
        customvideo.genrate  # noqa: B018


def test_type_checkers_see_the_same_homes() -> None:
    """The imports under TYPE_CHECKING and the lazy table may not drift apart."""
    tree = ast.parse(Path(customvideo.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: str(node.module).removeprefix("customvideo.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("customvideo.")
        for alias in node.names
    }
    assert seen == customvideo._HOMES
    assert set(seen) == PUBLIC - {"__version__"}


def test_importing_the_package_is_light() -> None:
    script = (
        "import sys, customvideo; customvideo.__all__; dir(customvideo);"
        "print(sorted({'torch', 'numpy', 'PIL', 'pydantic'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"


def test_every_pin_is_exact_and_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(line.count("==") == 1 and "+" not in line for line in pins)
    pinned = {_normal(line.split("==")[0]) for line in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for wanted in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name = _normal(wanted.split("[")[0].split(">")[0])
        assert name in pinned | {"customvideo"}, f"{name} has no pin in constraints.txt"


def test_the_wheel_carries_all_the_package_needs(tmp_path: Path) -> None:
    """Weights, recipes and templates travel with the code; nothing else of the tree does."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("customvideo-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    needed = {
        path.relative_to(source).as_posix()
        for path in (source / "customvideo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert carried == needed
    assert "customvideo/py.typed" in carried
    assert any(name.startswith("customvideo/templates/") for name in carried)
    assert any(name.startswith("customvideo/recipes/") for name in carried)
    assert any(
        name.startswith("customvideo/toybox/weights/") and name.endswith("model_index.json")
        for name in carried
    )


def _normal(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")
