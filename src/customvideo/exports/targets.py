"""Which programs adapters can be written for: the table, known without loading what writes them."""

from __future__ import annotations

from customvideo.errors import ConfigError
from customvideo.settings import suggest

__all__ = ["TARGETS", "check_target"]

TARGETS: dict[str, str] = {
    "comfyui": "customvideo.exports.comfyui:Comfyui",
    "diffusers": "customvideo.exports.for_diffusers:Diffusers",
    "kohya": "customvideo.exports.kohya:Kohya",
    "textual-inversion": "customvideo.exports.textual_inversion:TextualInversion",
    "merged-folder": "customvideo.exports.merged_folder:MergedFolder",
}
"""Name -> "module:class"; a class without arguments that answers `Target`."""


def check_target(name: str) -> None:
    """Refuse a name that is no row of the table.

    Raises:
        ConfigError: names the nearest one.
    """
    if name not in TARGETS:
        raise ConfigError(f"There is no export target '{name}'{suggest(name, TARGETS)}")
