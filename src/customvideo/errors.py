"""The exception tree: every error this package raises on purpose.

    CustomVideoError
    └── UserError (also a ValueError)   the input can be corrected; the command line exits with 2
        ├── SubjectError        photos, masks, subject folders, segmenters
        ├── PromptError         names, words, prompts
        ├── ConfigError         recipes, settings, unknown table rows
        ├── AdapterError        a file that is no adapter, or fits another backbone
        ├── BackboneError       a text-to-video model that cannot be found or loaded
        ├── AttentionError      sites, masks or maps that cannot support the attention loss
        ├── StorageError        a full disk, an unwritable place, a path of the wrong kind
        ├── EvaluationError     encoders and metrics
        ├── BenchmarkError      editions of CustomStudio, their photos and results
        ├── StudyError          a user study: its folder, its settings, its votes
        └── FleetError          workers on a cluster, batches of runs

Every message is one sentence that names the thing at fault and the way out; the command line
prints it without a traceback. Programmer errors are plain assertions and do not belong here.
"""

from __future__ import annotations

__all__ = [
    "AdapterError",
    "AttentionError",
    "BackboneError",
    "BenchmarkError",
    "ConfigError",
    "CustomVideoError",
    "EvaluationError",
    "FleetError",
    "PromptError",
    "StorageError",
    "StudyError",
    "SubjectError",
    "UserError",
]


_LONGEST = 1_200


class CustomVideoError(Exception):
    """Anything this package raises on purpose. A message that quotes what is far too long is cut in
    its middle, and what no terminal prints is left out."""

    def __init__(self, message: str = "") -> None:
        text = str(message).encode("utf-8", "replace").decode()
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 3 :]}"
        super().__init__(text)


class UserError(CustomVideoError, ValueError):
    """The user's input or surroundings are at fault, and the message says how to go on."""


class SubjectError(UserError):
    """A subject's folder, photos or masks cannot be used."""


class PromptError(UserError):
    """A subject's name or a prompt cannot be used."""


class ConfigError(UserError):
    """A recipe or setting is unknown or out of range."""


class AdapterError(UserError):
    """A file is not an adapter, or belongs to another backbone."""


class BackboneError(UserError):
    """A text-to-video model cannot be found or loaded."""


class AttentionError(UserError):
    """Attention sites, masks or maps cannot support what was asked of them."""


class StorageError(UserError):
    """A file or folder cannot be written or read."""


class EvaluationError(UserError):
    """An encoder or metric cannot be used on what it was given."""


class BenchmarkError(UserError):
    """An edition of CustomStudio, its photos or a benchmark's results cannot be used."""


class StudyError(UserError):
    """A user study's folder, settings or votes cannot be used."""


class FleetError(UserError):
    """Workers cannot be had on a cluster, or a batch of runs cannot be used."""
