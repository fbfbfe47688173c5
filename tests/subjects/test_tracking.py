"""Masks followed through clips whose true masks are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from customvideo.subjects.tracking import track
from tests.subjects.films import by_colour, crossing

Mask = NDArray[np.float32]


def overlaps(masks: Mask, truth: Mask) -> NDArray[np.float64]:
    one, other = masks >= 0.5, truth >= 0.5
    return np.asarray((one & other).sum((1, 2)) / np.maximum(1, (one | other).sum((1, 2))))


def test_one_good_mask_is_carried_through_the_clip() -> None:
    frames, truth = crossing(16)
    masks = track(frames, "cat", by_colour, truth[0])
    assert masks.shape == truth.shape
    assert masks.dtype == np.float32
    assert overlaps(masks, truth).min() > 0.8


def test_a_frame_that_was_segmented_wrongly_is_outvoted() -> None:
    frames, truth = crossing(10)
    asked = []

    def once_wrong(image: NDArray[np.uint8], category: str) -> Mask:
        asked.append(category)
        mask = by_colour(image, category)
        return np.asarray(1 - mask, np.float32) if len(asked) == 2 else mask

    masks = track(frames, "cat", once_wrong)
    assert overlaps(masks, truth).min() > 0.8
    assert 2 < len(asked) < 10


def test_who_leaves_the_picture_has_no_mask_there() -> None:
    frames, truth = crossing(12)
    gone = np.concatenate([frames[:7], np.repeat(frames[:1, :, -1:], 5, 0).repeat(96, 2)])
    masks = track(gone, "cat", by_colour, truth[0])
    assert (masks[:7] >= 0.5).any((1, 2)).all()
    assert (masks[-1] >= 0.5).mean() < 0.05


def test_what_is_found_nowhere_has_no_mask() -> None:
    frames, _ = crossing(6)
    nothing = np.zeros(frames.shape[1:3], np.float32)
    assert not track(frames, "cat", lambda *_: nothing).any()


def test_a_segmenter_that_follows_by_itself_does() -> None:
    frames, truth = crossing(6)

    class Own:
        def __call__(self, image: NDArray[np.uint8], category: str) -> Mask:
            return by_colour(image, category)

        def track(self, frames: NDArray[np.uint8], key: int, mask: Mask) -> Mask:
            assert overlaps(mask[None], truth[key : key + 1]) > 0.9
            return np.full(frames.shape[:3], 0.25, np.float32)

    assert (track(frames, "cat", Own()) == 0.25).all()


def test_short_and_small_clips_are_followed_too() -> None:
    frames, truth = crossing(2, 32, 40)
    assert overlaps(track(frames, "cat", by_colour), truth).min() > 0.6
