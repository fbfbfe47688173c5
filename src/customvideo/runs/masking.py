"""What a run says of masks: how much they cover, what the method does with them, what came of it.

Masks that do nothing are the silent failure of this trade: so every training says which uses its
method has for them, and at the end how far off it still is inside and outside of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from customvideo.methods.base import Method, ReadsMasks
from customvideo.runs.folder import LOSSES, MASKS, Say
from customvideo.subjects.masks import coverage, outliers, overlay_path
from customvideo.subjects.subject import Subject
from customvideo.training.progress import read_losses

__all__ = ["mask_effect", "say_masks"]

_LAST = 50
"""Steps whose mean is told: single steps differ by the noise they drew."""

_LOG = logging.getLogger(__name__)


def say_masks(method: Method, subjects: Sequence[Subject], out: Path, say: Say) -> None:
    """Say what the subjects' masks cover, which of them look odd, and what `method` does with
    them."""
    for subject in subjects:
        say(_covered(subject, out))
        _note_odd(subject, out)
    if isinstance(method, ReadsMasks):
        uses = method.mask_uses()
        said = f"What '{method.name}' does with masks: {', '.join(uses)}."
        say(said if uses else _unread(method.name))


def mask_effect(out: Path) -> str:
    """How the run in `out` ended inside and outside of its masks, as one sentence; "" if nothing
    was measured."""
    measured = [line.get("measured", {}) for line in read_losses(out / LOSSES)[-_LAST:]]
    found = {
        name: [one[name] for one in measured if name in one]
        for name in ("inside", "outside", "covered")
    }
    if not all(found.values()):
        return ""
    mean = {name: sum(values) / len(values) for name, values in found.items()}
    return (
        f"Over the last {len(measured)} steps the masks covered {mean['covered']:.0%} of the "
        f"training pictures; the error was {mean['inside']:.3f} inside them and "
        f"{mean['outside']:.3f} outside."
    )


def _unread(name: str) -> str:
    return (
        f"The method '{name}' reads no masks but to crop photos around their subjects: what is in "
        "the background is learned, too."
    )


def _covered(subject: Subject, out: Path) -> str:
    shares = sorted(coverage(mask) for mask in subject.masks)
    count = len(subject.images)
    return (
        f"{subject.word} {subject.category}: {count} photo{'' if count == 1 else 's'}, masks cover "
        f"{shares[0]:.0%} to {shares[-1]:.0%}; look at '{out / MASKS / subject.name}'"
    )


def _note_odd(subject: Subject, out: Path) -> None:
    shares = [coverage(mask) for mask in subject.masks]
    for index in outliers(subject):
        file, others = subject.files[index], shares[:index] + shares[index + 1 :]
        _LOG.warning(
            "The mask of '%s' covers %.0f%% of its photo, those of %s's other photos %.0f%% to "
            "%.0f%%; look at '%s' before you trust it.",
            *(file, 100 * shares[index], subject.word, 100 * min(others), 100 * max(others)),
            overlay_path(out / MASKS, subject, file),
        )
