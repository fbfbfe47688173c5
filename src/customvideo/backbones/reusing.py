"""Blocks that answer as they did a step before: whether a backbone has such, and letting it.

How is the family's own business, see `Transformer.reusing`; when to is `customvideo.generation`'s.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from customvideo.errors import ConfigError

__all__ = ["Reuses", "can_reuse", "reusing"]


@runtime_checkable
class Reuses(Protocol):
    """A backbone whose blocks can answer from memory while a video is drawn."""

    def reusing(self, threshold: float) -> AbstractContextManager[None]:
        """Inside they do, where the first block changes by less than `threshold`."""
        ...


def can_reuse(backbone: object) -> bool:
    """Whether it has such blocks."""
    return isinstance(backbone, Reuses)


def reusing(backbone: object, threshold: float) -> AbstractContextManager[None]:
    """As `Reuses.reusing`.

    Raises:
        ConfigError: the backbone has no such blocks.
    """
    if not isinstance(backbone, Reuses):
        name = getattr(backbone, "name", "")
        raise ConfigError(
            f"The backbone '{name}' has no blocks whose answers can be used again; set "
            "block_cache=0."
        )
    return backbone.reusing(threshold)
