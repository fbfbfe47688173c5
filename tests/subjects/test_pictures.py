"""What cameras, editors and mishaps do to picture files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo.errors import SubjectError
from customvideo.subjects.pictures import list_pictures, read_mask, read_picture
from tests.subjects.photos import RED, blob, mask_bytes, save, save_photo

_QUARTER_TURN = 6  # EXIF: turn by 90 degrees clockwise to look at it


def save_turned(path: Path) -> Path:
    """A photo stored 64 wide and 48 high that is meant to be looked at upright, 48 wide."""
    image = Image.fromarray(blob()[0])
    exif = Image.Exif()
    exif[0x0112] = _QUARTER_TURN
    image.save(path, exif=exif, quality=95)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    picture = read_picture(save_photo(tmp_path / f"a{suffix}"))
    assert picture.image.shape == (48, 64, 3)
    assert picture.image.dtype == np.uint8
    assert np.abs(picture.image[24, 32].astype(int) - RED).max() < 12
    assert picture.alpha is None


def test_listing_ignores_other_files_and_keeps_their_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp", "._a.png"):
        save_photo(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_pictures(tmp_path)] == ["a.png", "b.JPG", "c.webp"]


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    picture = read_picture(save_turned(tmp_path / "a.jpg"))
    assert picture.image.shape == (64, 48, 3)
    assert (picture.size, picture.stored_size) == ((64, 48), (48, 64))


def test_transparency_becomes_a_mask(tmp_path: Path) -> None:
    image, mask = blob()
    save(tmp_path / "a.png", np.dstack([image, mask_bytes(mask)]))
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None
    np.testing.assert_allclose(picture.alpha, mask)
    np.testing.assert_array_equal(picture.image, image)


def test_an_opaque_alpha_channel_says_nothing(tmp_path: Path) -> None:
    image, mask = blob()
    save(tmp_path / "a.png", np.dstack([image, np.full_like(mask_bytes(mask), 255)]))
    assert read_picture(tmp_path / "a.png").alpha is None


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_colour_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(blob()[0]).convert(mode).save(path)
    assert read_picture(path).image.shape == (48, 64, 3)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(48, axis=0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    image = read_picture(tmp_path / "a.png").image
    assert 120 <= image[0, 32, 0] <= 135


def test_large_photos_are_shrunk_with_their_masks(tmp_path: Path) -> None:
    image, mask = blob(600, 1600)
    save(tmp_path / "a.png", image)
    save(tmp_path / "m.png", mask_bytes(mask))
    picture = read_picture(tmp_path / "a.png")
    assert picture.image.shape == (384, 1024, 3)
    assert picture.size == (600, 1600)
    shrunk = read_mask(tmp_path / "m.png", picture)
    assert shrunk.shape == (384, 1024)
    assert abs(shrunk.mean() - mask.mean()) < 1e-3


def test_a_text_file_named_jpg(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("these are not pixels")
    with pytest.raises(SubjectError, match=r"a\.jpg' is not a JPEG, PNG or WebP picture"):
        read_picture(tmp_path / "a.jpg")


def test_another_format_under_a_false_name(tmp_path: Path) -> None:
    Image.fromarray(blob()[0]).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(SubjectError, match="is not a JPEG, PNG or WebP picture"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_image(tmp_path: Path, suffix: str, share: float) -> None:
    rng = np.random.default_rng(0)
    path = save(tmp_path / f"a{suffix}", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SubjectError, match=rf"a{suffix}' .*(damaged or cut short|not a JPEG)"):
        read_picture(path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SubjectError, match=r"a\.jpg'"):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize("size", [(1, 1), (31, 400), (400, 31)])
def test_a_tiny_image(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path / "a.png", np.zeros((*size, 3), np.uint8))
    with pytest.raises(SubjectError, match=f"only {size[1]}x{size[0]} pixels; .* at least 32x32"):
        read_picture(tmp_path / "a.png")


def test_a_strip(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((40, 3000, 3), np.uint8))
    with pytest.raises(SubjectError, match="3000x40 pixels, too narrow to use; crop it"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("factor", [1, 3])
def test_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: int) -> None:
    # Pillow warns above its limit and refuses above twice its limit.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 // factor - 1)
    save_photo(tmp_path / "a.png")
    with pytest.raises(SubjectError, match=r"a\.png' has too many pixels to be safe"):
        read_picture(tmp_path / "a.png")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(SubjectError, match="may not be read; change its permissions"):
        read_picture(tmp_path / "a.png")


def test_a_grey_mask_weighs(tmp_path: Path) -> None:
    picture = read_picture(save_photo(tmp_path / "a.png"))
    values = np.zeros((48, 64), np.uint8)
    values[:, 20:40] = 255
    values[:, 40:50] = 128
    mask = read_mask(save(tmp_path / "m.png", values), picture)
    assert (mask[0, 0], mask[0, 30]) == (0, 1)
    assert abs(mask[0, 45] - 0.502) < 1e-3


def test_transparent_parts_of_a_mask_are_black(tmp_path: Path) -> None:
    picture = read_picture(save_photo(tmp_path / "a.png"))
    mask = mask_bytes(blob()[1])
    white = np.full((48, 64, 3), 255, np.uint8)
    save(tmp_path / "m.png", np.dstack([white, mask]))
    np.testing.assert_allclose(read_mask(tmp_path / "m.png", picture), blob()[1])


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    picture = read_picture(save_photo(tmp_path / "a.png"))
    path = save(tmp_path / "m.png", np.zeros((40, 64), np.uint8))
    with pytest.raises(SubjectError, match=r"m\.png' is 64x40 pixels .* 'a\.png' is 64x48;"):
        read_mask(path, picture)


def test_a_mask_saved_unturned_for_a_turned_photo(tmp_path: Path) -> None:
    picture = read_picture(save_turned(tmp_path / "a.jpg"))
    path = save(tmp_path / "m.png", mask_bytes(blob()[1]))
    with pytest.raises(SubjectError, match="EXIF orientation asks; turn the mask the same way"):
        read_mask(path, picture)
