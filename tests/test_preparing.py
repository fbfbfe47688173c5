"""`customvideo prepare`: what is understood, what is written, and what is never touched."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from customvideo.backbones.spelling import spell, tokenizers_of
from customvideo.evaluation.naming import likeliest
from customvideo.subjects.folders import load_subjects
from customvideo.toybox.judges import ToyClip
from customvideo.video import Video
from tests.subjects.films import by_colour, crossing
from tests.subjects.photos import blob, make_subject, mask_bytes, save, textured
from tests.surroundings import contents, run_cli, train

COLOURS = ((220, 30, 30), (240, 90, 60), (150, 20, 60))


def photo(index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A coloured thing before a detailed background; each index another."""
    image, mask = blob(150, 200, COLOURS[index % 3], (0.45 + 0.05 * index, 0.5))
    back = textured(index, 150, 200)
    return np.where(mask[..., None] > 0, image, (back * 0.4 + 120).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for index in range(3):
        save(folder / "tom" / f"{index}.png", photo(index))
        save(folder / "tom" / "masks" / f"{index}.png", mask_bytes(truth(index)))
    return folder


def truth(index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return blob(150, 200, COLOURS[0], (0.45 + 0.05 * index, 0.5))[1]


def on_toybox(out: Path, *subjects: str, flags: tuple[str, ...] = ()) -> Any:
    described = [part for text in subjects for part in ("--subject", text)]
    return run_cli("prepare", *described, "--out", out, *flags)


@pytest.fixture
def prepare(tiny_zeroscope: Path) -> Any:
    """`customvideo prepare` for a backbone whose tokenizer is quickly read."""

    def run(out: Path, *subjects: str, flags: tuple[str, ...] = ()) -> Any:
        return on_toybox(out, *subjects, flags=("--backbone", str(tiny_zeroscope), *flags))

    return run


def record(out: Path) -> Any:
    return json.loads((out / "prepare.json").read_text(encoding="utf-8"))


def test_a_tidy_folder_is_what_training_takes(
    prepare: Any, photos: Path, tmp_path: Path, tiny_zeroscope: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(7)).save(photos / "tom" / "turned side.jpg", exif=exif, quality=95)
    save(photos / "tom" / "copy.jpg", photo(0))
    (photos / "tom" / "0.txt").write_text("a cat on a rug")
    (photos / "tom" / "broken.jpg").write_bytes(b"x")
    before = contents(photos)
    result = prepare(tmp_path / "out", f"tom:cat={photos / 'tom'}")
    assert result.exit_code == 0, result.output
    assert contents(photos) == before
    assert "4 photos kept" in result.output and "broken.jpg: is not a JPEG" in result.output
    (tom,) = load_subjects([f"tom={tmp_path / 'out' / 'tom'}"])
    assert tom.files == ("0.png", "1.png", "2.png", "turned-side.jpg")
    assert tom.category == "cat" and tom.captions[0] == "a <tom> cat on a rug"
    assert tom.images[3].shape == (200, 150, 3)
    np.testing.assert_array_equal(tom.masks[1], truth(1))
    assert "\n  customvideo train --subject tom:cat=" in result.output
    subject = ["--subject", f"tom:cat={tmp_path / 'out' / 'tom'}"]
    assert train(tmp_path / "run", subject, tiny_zeroscope).exit_code == 0


def test_the_same_again_changes_nothing_and_keeps_what_you_changed(
    prepare: Any, photos: Path, tmp_path: Path
) -> None:
    out, given = tmp_path / "out", f"tom:cat={photos / 'tom'}"
    assert prepare(out, given).exit_code == 0
    first = contents(out)
    times = {path: path.stat().st_mtime_ns for path in (out / "tom").rglob("*")}
    assert prepare(out, given).exit_code == 0
    assert contents(out) == first
    assert {path: path.stat().st_mtime_ns for path in (out / "tom").rglob("*")} == times
    redrawn = np.zeros((150, 200), np.uint8)
    redrawn[40:90, 60:120] = 255
    save(out / "tom" / "masks" / "1.png", redrawn)
    (out / "tom" / "2.txt").write_text("a cat in the rain")
    save(out / "tom" / "more.png", photo(9))
    assert prepare(out, given).exit_code == 0
    (tom,) = load_subjects([f"tom={out / 'tom'}"])
    np.testing.assert_array_equal(tom.masks[1] * 255, redrawn)
    assert tom.captions[2] == "a <tom> cat in the rain" and "more.png" in tom.files
    kept = {one["file"]: one["mask"] for one in record(out)["folders"][0]["photos"]}
    assert kept == {"0.png": "given", "1.png": "yours", "2.png": "given"}


def test_what_a_kill_had_moved_aside_comes_back(prepare: Any, photos: Path, tmp_path: Path) -> None:
    out, given = tmp_path / "out", f"tom:cat={photos / 'tom'}"
    assert prepare(out, given).exit_code == 0
    redrawn = np.zeros((150, 200), np.uint8)
    redrawn[40:90, 60:120] = 255
    save(out / "tom" / "masks" / "1.png", redrawn)
    (out / "tom").rename(out / ".tom.old")
    assert prepare(out, given).exit_code == 0
    (tom,) = load_subjects([f"tom={out / 'tom'}"])
    np.testing.assert_array_equal(tom.masks[1] * 255, redrawn)
    assert not (out / ".tom.old").exists()


def test_the_record_says_what_was_seen(photos: Path, tmp_path: Path) -> None:
    dark = (photo(0) * 0.04).astype(np.uint8)
    save(photos / "tom" / "night.png", dark)
    save(photos / "tom" / "masks" / "night.png", mask_bytes(truth(0)))
    (photos / "tom" / "0.png").unlink()
    (photos / "tom" / "masks" / "0.png").unlink()
    assert on_toybox(tmp_path / "out", f"tom:cat={photos / 'tom'}").exit_code == 0
    (tom,) = record(tmp_path / "out")["folders"]
    seen = {one["file"]: one for one in tom["photos"]}
    assert seen["night.png"]["remarks"][0].startswith("blurred")
    assert any("dark" in text for text in seen["night.png"]["remarks"])
    assert seen["1.png"]["remarks"] == [] and (seen["1.png"]["width"], seen["1.png"]["height"]) == (
        200,
        150,
    )
    assert seen["1.png"]["coverage"]["tom"] == pytest.approx(truth(1).mean(), abs=1e-3)
    (word,) = tom["words"]
    assert word["category"] == ["cat</w>"] and len(word["bare"]) > 1 and word["row"] > 1000
    assert len(tom["suggested"]) == 3 and tom["category_stated"]


def test_group_photos_get_a_mask_a_subject(prepare: Any, photos: Path, tmp_path: Path) -> None:
    for index in range(3):
        save(photos / "rex" / f"{index}.png", photo(index))
        save(photos / "rex" / "masks" / f"{index}.png", mask_bytes(truth(index)))
    save(photos / "both" / "a.png", np.hstack([photo(0), photo(1)]))
    save(photos / "both" / "unsaid.png", np.hstack([photo(5), photo(2)]))
    boxes = [
        {"label": "tom", "bbox": [0.1, 0.1, 0.4, 0.9]},
        {"label": "rex", "bbox": [0.6, 0.1, 0.9, 0.9]},
    ]
    (photos / "both" / "a.bbox").write_text(json.dumps(boxes))
    specs = [f"tom:cat={photos / 'tom'}", f"rex:dog={photos / 'rex'}"]
    result = prepare(tmp_path / "out", *specs, f"tom+rex={photos / 'both'}")
    assert result.exit_code == 0, result.output
    assert "unsaid.png: cannot be used: Nobody says where <tom> is" in result.output
    tidy = [f"{name}={tmp_path / 'out' / name}" for name in ("tom", "rex", "tom+rex")]
    tom, rex = load_subjects(tidy)
    (group,) = tom.together
    assert rex.together == (group,) and list(group.masks) == ["tom", "rex"]
    assert group.masks["tom"][:, 200:].max() == 0 == group.masks["rex"][:, :200].max()


class _Loads(HTMLParser):
    """Collects what a page would fetch, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_escapes_everything_and_loads_nothing(
    prepare: Any, photos: Path, tmp_path: Path
) -> None:
    odd = photos / "<script>alert(1)<"
    (photos / "tom").rename(odd)
    (odd / "0.txt").write_text("a cat & <b>bold</b>")
    (odd / "<img src=x>.docx").write_text("x")
    out = tmp_path / "out"
    result = prepare(out, f"tom:cat={odd}")
    assert result.exit_code == 0, result.output
    text = (out / "prepare.html").read_text(encoding="utf-8")
    page = _Loads()
    page.feed(text)
    assert "script" not in page.tags and "b" not in page.tags
    assert all(source.startswith(("data:", "#")) for source in page.sources)
    assert text.count("<img ") == 3 and "&lt;img src=x&gt;.docx" in text


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("tom:cat={0}/gone", "There is no folder"),
        ("tom:cat={0}/empty", "holds no picture of 'tom' that can be used"),
        ("tom+rex={0}/tom", "No subject was given"),
        ("tom:c@t={0}/tom", "cannot be a category"),
        ("tom", "does not describe a subject"),
    ],
)
def test_what_cannot_be_prepared(
    prepare: Any, photos: Path, tmp_path: Path, subject: str, message: str
) -> None:
    (photos / "empty").mkdir()
    result = prepare(tmp_path / "out", subject.format(photos))
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "out").exists()


def test_places_that_are_refused(prepare: Any, photos: Path, tmp_path: Path) -> None:
    given = f"tom:cat={photos / 'tom'}"
    for out in (photos / "tom" / "out", photos, photos / "tom"):
        result = prepare(out, given)
        assert result.exit_code == 2 and "lie one in the other" in result.output
    save(tmp_path / "mine" / "holiday.png", photo(0))
    result = prepare(tmp_path / "mine", given)
    assert result.exit_code == 2 and "is not empty and holds no prepare.json" in result.output
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "prepare.json").write_text("{")
    result = prepare(tmp_path / "out", given)
    assert result.exit_code == 2 and "prepare.json' cannot be read" in result.output
    result = prepare(tmp_path / "new", given, given)
    assert result.exit_code == 2 and "'tom' is given twice" in result.output
    result = prepare(tmp_path / "new", given, flags=("--clip", "toybox-dino"))
    assert result.exit_code == 2 and "reads no texts" in result.output
    result = prepare(tmp_path / "new", given, flags=("--backbone", "zeroscop"))
    assert result.exit_code == 2 and "zeroscope" in result.output


def test_masks_that_fit_no_photo_are_refused(prepare: Any, photos: Path, tmp_path: Path) -> None:
    for path in (photos / "tom" / "masks").iterdir():
        path.rename(path.with_stem(f"mask-of-{path.stem}"))
    result = prepare(tmp_path / "out", f"tom:cat={photos / 'tom'}")
    assert result.exit_code == 2 and "None of the 3 masks" in result.output


def test_a_category_nobody_states_is_guessed_and_said(photos: Path, tmp_path: Path) -> None:
    (photos / "tom").rename(photos / "duck")
    result = on_toybox(tmp_path / "out", f"tom={photos / 'duck'}")
    assert result.exit_code == 0 and "tom duck (nobody said so: the best guess)" in result.output
    assert (tmp_path / "out" / "tom" / "subject.toml").read_text().count("duck") == 1


def test_likely_nouns_have_shares_that_sum_to_one() -> None:
    subject = make_subject("tom", "cat", (200, 30, 30))
    nouns = ["cat", "dog", "car"]
    found = likeliest(ToyClip(), subject, nouns, count=3)
    assert sorted(noun for noun, _ in found) == sorted(nouns)
    assert sum(share for _, share in found) == pytest.approx(1, abs=1e-5)
    assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)


def test_words_are_spelt_without_loading_a_model(tiny_zeroscope: Path) -> None:
    (tokenizer,) = tokenizers_of(str(tiny_zeroscope)).values()
    spelt = spell(tokenizer, "tokenizer", "<tom>", "cat")
    assert spelt.row == len(tokenizer) and spelt.category and spelt.bare


def test_clips_are_listed_and_copied_and_a_folder_may_hold_nothing_else(
    prepare: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "clips" / "tom"
    folder.mkdir(parents=True)
    frames, truth = crossing()
    Video(frames).save(folder / "My run.mp4")
    (folder / "bad.webm").write_bytes(b"nothing")
    save(folder / "masks" / "My run.png", mask_bytes(truth[0]))
    (folder / "My run.txt").write_text("a cat runs")
    result = prepare(tmp_path / "out", f"tom:cat={folder}")
    assert result.exit_code == 0, result.output
    (described,) = record(tmp_path / "out")["folders"]
    (clip,) = described["clips"]
    assert clip["file"] == "My-run.mp4"
    assert (clip["frames"], clip["fps"], clip["in_sight"], clip["mask"]) == (10, 8.0, 1.0, "given")
    assert [left["file"] for left in described["left_out"]] == ["bad.webm"]
    assert "My-run.mp4" in (tmp_path / "out/prepare.html").read_text(encoding="utf-8")
    (tom,) = load_subjects(f"tom={tmp_path / 'out/tom'}", by_colour)
    assert tom.category == "cat"
    assert tom.clips[0].caption == "a <tom> cat runs"
    assert (tmp_path / "out/tom/My-run.mp4").read_bytes() == (folder / "My run.mp4").read_bytes()
