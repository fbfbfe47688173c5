"""Sites ranked by where they see a category."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from customvideo.attention.site import AttentionSite
from customvideo.backbones.unet3d import UNet3D, load_folder
from customvideo.errors import ConfigError
from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig
from customvideo.training import ranking
from customvideo.training.ranking import rank_sites
from tests.cast import make_cast


@pytest.fixture(scope="module")
def backbone(tiny_zeroscope: Path) -> UNet3D:
    return load_folder(tiny_zeroscope, device="cpu")


def test_every_site_is_ranked_and_the_backbone_is_left_alone(backbone: UNet3D) -> None:
    tokenizer = backbone.tables()[0].tokenizer
    found = rank_sites(backbone, make_cast(), scenes=2)
    sites = backbone.sites(1, *backbone.size)
    assert {one.site.path for one in found} == {site.path for site in sites}
    overlaps = [one.overlap for one in found]
    assert overlaps == sorted(overlaps, reverse=True) and 0 < overlaps[-1] <= overlaps[0] < 1
    assert backbone.tables()[0].tokenizer is tokenizer
    assert [one.overlap for one in rank_sites(backbone, make_cast(), scenes=2)] == overlaps


def test_a_map_on_its_mask_beats_one_beside_it() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = 1
    on, beside = mask[:, None] * 0.3 + 0.1, mask.roll(4, dims=2)[:, None] * 0.3 + 0.1
    exact, wrong = (ranking._measured(maps, mask) for maps in (on, beside))
    assert exact[0] == 1 and wrong[0] < 0.2
    # Sixteen cells of 0.4 and 48 of 0.1, of which the mask has a quarter of the picture.
    assert exact[1] == pytest.approx(6.4 / 11.2 * 4)
    assert wrong[1] == pytest.approx(1.6 / 11.2 * 4)


def test_chosen_sites_are_watched_whatever_their_size(backbone: UNet3D) -> None:
    def watched(*paths: str) -> list[AttentionSite]:
        config = CustomVideoConfig(sites=paths)
        return CustomVideo(config).watches(backbone, 1, *backbone.size)

    every = [site.path for site in backbone.sites(1, *backbone.size)]
    assert [site.path for site in watched(every[3], every[0])] == [every[0], every[3]]
    with pytest.raises(ConfigError, match=r"reads no text at 'up_blocks\.9'"):
        watched(every[0], "up_blocks.9")
