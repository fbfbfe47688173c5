"""A model of every row of the BACKBONES table; those without weights here are tiny and random."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from customvideo.backbones import folder as folders
from customvideo.backbones import transformer, unet3d
from customvideo.backbones.base import BACKBONES, Backbone, load_backbone
from customvideo.errors import BackboneError
from customvideo.tables import import_target

TINY = {
    "zeroscope": "tests.tiny:build_tiny_zeroscope",
    "modelscope": "tests.tiny:build_tiny_zeroscope",
    "animatediff": "tests.tiny_animatediff:build_tiny_animatediff",
    "wan-1.3b": "tests.tiny_wan:build_tiny_wan",
    "wan-14b": "tests.tiny_wan:build_tiny_wan",
    "wan2.2-5b": "tests.tiny_wan:build_tiny_wan_every_token",
    "wan2.2-14b": "tests.tiny_wan:build_tiny_wan_experts",
    "ltx": "tests.tiny_ltx:build_tiny_ltx",
    "cogvideox-2b": "tests.tiny_cogvideox:build_tiny_cogvideox",
    "cogvideox-5b": "tests.tiny_cogvideox:build_tiny_cogvideox_turned",
    "hunyuan": "tests.tiny_hunyuan:build_tiny_hunyuan",
}
"""Row of the table -> who writes a tiny model of its class into a folder."""


@pytest.fixture(scope="module", params=BACKBONES)
def row(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def loads(row: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Backbone]]:
    """Loads the row's model, anew at each call."""
    with pytest.MonkeyPatch.context() as patch:
        if row in TINY:
            folder = tmp_path_factory.mktemp("tiny")
            import_target(TINY[row])(folder)
            for module in (folders, transformer, unet3d):
                patch.setattr(module, "fetch", lambda name: folder)
        yield lambda: load_backbone(row, device="cpu")


@pytest.fixture(scope="module")
def backbone(row: str, loads: Callable[[], Backbone]) -> Backbone:
    try:
        return loads()
    except BackboneError as error:
        if row != "toybox":
            raise
        # A source tree before its first pre-training has no toybox weights.
        pytest.skip(str(error))
