"""What a demo that was stopped has done already, kept in its folder, so that it goes on there.

A finished demo has nothing left to go on with: run again, it is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from customvideo import __version__
from customvideo.backbones.base import Backbone
from customvideo.config import Recipe, dump_toml
from customvideo.demo.acts import Act
from customvideo.errors import ConfigError
from customvideo.files import ensure_dir, write_text
from customvideo.records import parse_json
from customvideo.runs.folder import ADAPTER, CHECKPOINTS
from customvideo.training.checkpoint import newest_valid, recover

__all__ = ["Ledger", "require_free"]

_MARK = "demo.json"
_BEGUN, _LEARNED = "begun", "learned"


def require_free(out: Path) -> None:
    """Check that `out` is new, empty or holds a demo; it changes nothing.

    Raises:
        ConfigError: there is something else.
    """
    holds_demo = (out / _MARK).is_file()
    if not holds_demo and out.exists() and (out.is_file() or any(out.iterdir())):
        raise ConfigError(f"'{out}' holds something that is no demo; choose another --out.")


class Ledger:
    """The progress of the demo in `out`; that of another version, recipe or model is forgotten."""

    def __init__(self, out: Path, recipe: Recipe, backbone: Backbone) -> None:
        self._out = out
        self._kind = {
            "version": __version__,
            "recipe": dump_toml(recipe),
            "backbone": backbone.fingerprint,
        }
        self._acts = self._read()
        ensure_dir(out)
        self._write()

    def has_learned(self, act: Act) -> bool:
        """Whether the act's adapter is there, whole, from before the stop."""
        return self._acts.get(act.key) == _LEARNED and (act.folder(self._out) / ADAPTER).is_file()

    def has_begun(self, act: Act) -> bool:
        """Whether the act's learning can be gone on with."""
        checkpoints = act.folder(self._out) / CHECKPOINTS
        recover(checkpoints)
        return self._acts.get(act.key) == _BEGUN and newest_valid(checkpoints).newest is not None

    def begin(self, act: Act) -> None:
        """Note that the act's learning begins, or goes on."""
        self._note(act, _BEGUN)

    def learned(self, act: Act) -> None:
        """Note that the act's adapter is there."""
        self._note(act, _LEARNED)

    def close(self) -> None:
        """Note that nothing is left to be done."""
        self._acts = {}
        self._write()

    def _note(self, act: Act, state: str) -> None:
        self._acts[act.key] = state
        self._write()

    def _read(self) -> dict[str, str]:
        try:
            found = parse_json((self._out / _MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(found, Mapping) or any(
            found.get(key) != value for key, value in self._kind.items()
        ):
            return {}
        return dict(found.get("acts", {}))

    def _write(self) -> None:
        text = json.dumps({**self._kind, "acts": self._acts}, indent=2)
        write_text(self._out / _MARK, text + "\n")
