"""The shape of the package: which room may import which, which library lives where.

The rooms stand in a row, and a room imports only rooms to its left. The imports are read from the
source, those inside functions included, so a lazy import is no way around the rule.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "customvideo"

ROW = [
    ["errors", "notes"],
    ["settings"],
    ["tables"],
    ["processes"],
    ["files"],
    ["records"],
    ["claims"],
    ["video"],
    ["reels"],
    ["quiet"],
    ["subjects"],
    ["attention"],
    ["backbones"],
    ["adapters"],
    ["methods"],
    ["training", "generation", "evaluation"],
    ["exports"],
    ["config"],
    ["toybox", "charts"],
    ["report"],
    ["runs"],
    ["demo"],
    ["fleet"],
    ["benchmark", "batch", "doctor"],
    ["userstudy", "workspace"],
    ["studio"],
    ["cli"],
    ["__main__"],
]
"""Left to right; rooms that share a place never import each other."""

PLACE = {room: place for place, rooms in enumerate(ROW) for room in rooms}

BEHIND_TABLES = {"toybox": ["toybox", "demo", "cli"]}
"""Rooms that all others reach by a table's row only."""

HOMES = {
    "accelerate": ["training"],
    "alembic": ["userstudy"],
    "av": ["video", "reels"],
    "bitsandbytes": ["backbones", "training"],
    "cv2": ["evaluation", "subjects"],
    "diffusers": ["backbones", "exports", "toybox"],
    "fastapi": ["userstudy", "studio"],
    "filelock": ["files", "workspace"],
    "gradio": ["studio"],
    "huggingface_hub": ["doctor"],
    "itsdangerous": ["userstudy"],
    "jinja2": ["report", "benchmark", "userstudy", "studio"],
    "markupsafe": ["userstudy", "studio"],
    "packaging": ["doctor"],
    "psutil": ["processes", "runs", "workspace"],
    "rich": ["training", "runs", "demo", "fleet", "benchmark", "cli", "toybox"],
    "sqlalchemy": ["userstudy"],
    "starlette": ["userstudy", "studio"],
    "tokenizers": ["toybox"],
    "transformers": ["quiet", "backbones", "adapters", "evaluation", "subjects", "toybox"],
    "typer": ["cli"],
    "uvicorn": ["userstudy", "studio"],
}
"""Libraries that only these rooms may import; all others that are allowed follow."""

ANYWHERE = {"PIL", "numpy", "pydantic", "pydantic_core", "safetensors", "tomli_w", "torch"}

UNSAFE = {
    **{"trust_remote_code": False, "weights_only": True, "use_safetensors": True},
    **{"allow_pickle": False, "safe_serialization": True},
}
"""Options that decide whether a stranger's code or pickle is run -> what alone they may be."""

LONGEST_FILE = 400
LONGEST_FUNCTION = 40
"""Lines after the signature and the docstring."""
DRAWINGS = ("toybox/animals.py", "toybox/machines.py", "toybox/uprights.py")
"""Lists of body parts, written as functions: to be read like a table, however long."""


@cache
def sources() -> dict[str, ast.Module]:
    """Dotted module name (without the package's own) to its parsed source."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


def names() -> list[str]:
    return [name for name in sources() if name]


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Absolute names of everything `module` imports, with the line."""
    for node in ast.walk(sources()[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            yield str(node.module), node.lineno
            if node.module == "customvideo":
                yield from ((f"customvideo.{alias.name}", node.lineno) for alias in node.names)


def room(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", names())
def test_imports_point_left(module: str) -> None:
    assert room(module) in PLACE, f"'{room(module)}' has no place in the row"
    for target, line in imports(module):
        parts = target.split(".")
        if parts[0] != "customvideo" or len(parts) == 1 or parts[1] == "__version__":
            continue
        own = parts[1] == room(module)
        assert room(module) in BEHIND_TABLES.get(parts[1], PLACE), (
            f"{module}:{line} imports {target}, which is reached through tables only"
        )
        assert own or PLACE[parts[1]] < PLACE[room(module)], (
            f"{module}:{line} imports {target}, which is not to its left"
        )


@pytest.mark.parametrize("module", names())
def test_libraries_stay_in_their_rooms(module: str) -> None:
    for target, line in imports(module):
        library = target.split(".")[0]
        if library == "customvideo" or library in sys.stdlib_module_names | ANYWHERE:
            continue
        assert library in HOMES, f"{module}:{line} imports {library}, which has no home"
        assert room(module) in HOMES[library], f"{module}:{line} imports {library}"


def test_transformers_is_imported_in_one_file_of_a_shared_room() -> None:
    for module in names():
        libraries = {target.split(".")[0] for target, _ in imports(module)}
        if "transformers" in libraries and room(module) in ("subjects", "evaluation"):
            allowed = ("captioner", "sam2_video", "segmenters")
            assert module in (*(f"subjects.{name}" for name in allowed), "evaluation.encoders")


def test_nothing_is_pickled() -> None:
    for module in names():
        assert not {target for target, _ in imports(module)} & {"pickle", "shelve", "dill"}
        for node in ast.walk(sources()[module]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                called = f"{owner}.{node.func.attr}"
                assert called not in ("torch.save", "torch.load", "np.load", "np.save"), (
                    f"{module}:{node.lineno} calls {called}"
                )
            if isinstance(node, ast.keyword) and node.arg in UNSAFE:
                given = node.value.value if isinstance(node.value, ast.Constant) else None
                assert given is UNSAFE[node.arg], f"{module}:{node.lineno} sets {node.arg}"


@pytest.mark.parametrize("module", names())
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(sources()[module]), f"{module} has no docstring"


def test_files_and_functions_stay_readable() -> None:
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(PACKAGE).as_posix()
        if len(text.splitlines()) > LONGEST_FILE:
            long.append(f"{name} has over {LONGEST_FILE} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = _body_lines(node)
                if lines > LONGEST_FUNCTION and not name.startswith(DRAWINGS):
                    long.append(f"{name}:{node.name} has {lines} lines")
    assert not long, "\n".join(long)


def test_table_rows_point_at_code() -> None:
    """Every "module:attribute" in a literal table names something that exists."""
    for module in names():
        for node in ast.walk(sources()[module]):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                target, colon, attribute = node.value.partition(":")
                if colon and target.startswith("customvideo.") and attribute.isidentifier():
                    home = target.removeprefix("customvideo.")
                    assert home in sources(), f"{module} points at {target}"
                    assert attribute in _defined(sources()[home]), f"{module} -> {node.value}"


def test_importing_every_module_does_nothing_else(tmp_path: Path) -> None:
    """No file, no folder, no logging set up, no change of surroundings, and no network."""
    script = """
import importlib, json, logging, os, socket, sys
def refuse(*_): raise AssertionError("an import opened a connection")
socket.socket.connect = refuse
before = dict(os.environ)
handlers = list(logging.getLogger().handlers)
import customvideo
first = sorted({"torch", "numpy", "diffusers", "transformers"} & set(sys.modules))
own = json.loads(sys.argv[1])
for name in own:
    importlib.import_module("customvideo." + name)
changed = sorted(k for k in set(before) | set(os.environ) if before.get(k) != os.environ.get(k))
print(json.dumps({
    "loaded_at_once": first,
    "environment": [k for k in changed if k.startswith(("CUSTOMVIDEO", "HF_", "PYTHON"))],
    "handlers": len(logging.getLogger().handlers) - len(handlers),
}))
"""
    result = subprocess.run(
        [sys.executable, "-c", script, json.dumps(names())],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    seen = json.loads(result.stdout.splitlines()[-1])
    assert seen == {"loaded_at_once": [], "environment": [], "handlers": 0}
    assert len(result.stdout.splitlines()) == 1, "an import printed something"
    assert not list(tmp_path.iterdir())


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def _defined(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found
