"""Choosing, printing and refusing attention sites."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from customvideo.attention.site import (
    AttentionSite,
    describe,
    intermediate,
    level,
    require_visible,
)
from customvideo.errors import AttentionError


def site(name: str, height: int, width: int) -> AttentionSite:
    path = f"{name}.transformer_blocks.0.attn2"
    return AttentionSite(path, "cross", (1, height, width), 5, f"{path}.to_k", f"{path}.to_v")


ZEROSCOPE = [
    site("down.0", 40, 72),
    site("down.1", 20, 36),
    site("up.1", 10, 18),
    site("mid", 5, 9),
]


def test_intermediate_takes_the_middle_levels_of_zeroscope() -> None:
    assert [s.cells for s in intermediate(ZEROSCOPE)] == [720, 180]
    assert [s.cells for s in intermediate(ZEROSCOPE, low=100, high=300)] == [180]


def test_without_a_middle_the_finest_level_is_taken_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    small = [site("a", 4, 6), site("b", 8, 10), site("c", 8, 10)]
    with caplog.at_level(logging.WARNING):
        assert intermediate(small) == small[1:]
    assert "8x10" in caplog.text


@pytest.mark.parametrize(("count", "first", "last"), [(30, 10, 19), (28, 9, 18), (1, 0, 0)])
@pytest.mark.parametrize("side", [40, 12, 4])
def test_without_levels_the_middle_third_is_taken_in_silence(
    caplog: pytest.LogCaptureFixture, count: int, first: int, last: int, side: int
) -> None:
    sites = [site(f"block.{index}", side, side) for index in range(count)]
    with caplog.at_level(logging.WARNING):
        assert intermediate(sites) == sites[first : last + 1]
    assert not caplog.text
    turns = [replace(one, leg=leg) for leg in (0, 1) for one in sites]
    middle = [replace(one, leg=leg) for leg in (0, 1) for one in sites[first : last + 1]]
    assert intermediate(turns) == middle


def test_no_site_at_all_is_an_error() -> None:
    with pytest.raises(AttentionError, match="no attention site"):
        intermediate([])


def test_description_groups_by_grid_and_shortens_paths() -> None:
    lines = describe([*ZEROSCOPE, site("up.2", 20, 36)]).splitlines()
    assert len(lines) == 4
    assert "20x36" in lines[1] and lines[1].endswith("2 sites  down.1, up.2")
    assert describe([ZEROSCOPE[3]]).endswith(ZEROSCOPE[3].path)


def test_a_subject_under_three_cells_of_every_site_is_refused() -> None:
    masks = torch.zeros(2, 80, 120)
    masks[0, :40, :40] = 1
    masks[1, :16, :14] = 1  # 2.8 cells of 10x10 pixels at the larger of the two grids
    masks[1, 16:20, :1] = 1
    sites = [site("a", 4, 6), site("b", 8, 12)]
    with pytest.raises(AttentionError, match=r"mask of <ada> covers 2\.\d cells of the 8x12"):
        require_visible(sites, ["<tom>", "<ada>"], masks)
    masks[1, :20, :20] = 1
    require_visible(sites, ["<tom>", "<ada>"], masks)


def test_a_level_is_one_size_counted_from_the_finest() -> None:
    sites = [*ZEROSCOPE, site("up.2", 20, 36)]
    assert level(sites, 1) == [ZEROSCOPE[0]]
    assert level(sites, 2) == [ZEROSCOPE[1], sites[-1]]
    assert level(sites, 4) == [ZEROSCOPE[3]]
    with pytest.raises(AttentionError, match="no attention level 5; the backbone has 4"):
        level(sites, 5)


def test_how_small_is_too_small_can_be_said() -> None:
    masks = torch.zeros(1, 80, 120)
    masks[0, :10, :20] = 1
    sites = [site("a", 8, 12)]
    require_visible(sites, ["<tom>"], masks, fewest=2)
    with pytest.raises(AttentionError, match=r"needs 2\.5;.*least_cells"):
        require_visible(sites, ["<tom>"], masks, fewest=2.5)
