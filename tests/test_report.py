"""The report page: it stands alone, shows what it was given, and trusts no text."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customvideo.errors import StorageError
from customvideo.report import AttentionView, Comparison, ReportData, render_report
from customvideo.subjects.subject import Subject
from customvideo.video import Video

VOID = {"meta", "link", "img", "br", "line"}
NASTY = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Elements in order with their attributes, and the text of each script and style."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self.text = ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.inside.setdefault(self.open[-1], []).append(data)
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def make_subject(name: str = "tom", file: str = "one.jpg") -> Subject:
    image = np.random.default_rng(0).integers(0, 255, (60, 900, 3), dtype=np.uint8)
    mask = np.zeros((60, 900), np.float32)
    mask[:30, :450] = 1
    return Subject(name, f"<{name}>", "cat", (image, image), (mask, mask), (file, "two.jpg"))


def make_video(count: int = 4) -> Video:
    frames = np.zeros((count, 32, 48, 3), np.uint8)
    frames[:, 8:16, 8:16] = (200, 80, 40)
    return Video(frames)


def scores(clip_t: float, **more: object) -> dict[str, object]:
    subjects = {"tom": {"clip_i": 0.7, "dino_i": clip_t}}
    return {"clip_t": clip_t, "t_cons": None, "rows": [], "per_subject": subjects, **more}


def full(text: str = "a <tom> cat") -> ReportData:
    return ReportData(
        title=text,
        intro=text,
        subjects=[make_subject(file=f"{text}.jpg")],
        scenes=[np.full((20, 30, 3), 90, np.uint8)],
        losses={text: [(step, 1 / (step + 1)) for step in range(300)]},
        comparisons=[Comparison(text, make_video(), make_video(), before_prompt=text)],
        attention=[AttentionView(text, {text: make_video()})],
        metrics={"before": scores(0.25, **{text: 0.5}), text: scores(0.28)},
        made={text: text},
        commands=[text],
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(render_report(tmp_path_factory.mktemp("report") / "report.html", full()))


def test_the_page_loads_nothing_from_anywhere(page: Page) -> None:
    for _, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "poster", "srcset", "data", "action"):
                assert str(value).startswith(("data:", "#")), f"{name}={str(value)[:60]}"
    (style,) = page.inside["style"]
    assert "url(" not in style and "@import" not in style
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert str(policy).startswith("default-src 'none'")


def test_everything_given_is_shown(page: Page) -> None:
    assert len(page.all("video")) == 3
    # Two photos with overlays, a scene, a strip.
    assert len(page.all("img")) == 6
    assert len(page.all("polyline")) == 2
    for expected in ("a <tom> cat", "0.280", "+0.030", "the subject covers 25%", "(CLIP-T)"):
        assert expected in page.text


def test_pictures_and_films_are_real(page: Page) -> None:
    kinds = set()
    for source in [*page.all("img"), *page.all("video")]:
        head, _, body = str(source["src"]).partition(",")
        kinds.add(head)
        data = base64.b64decode(body, validate=True)
        if head.startswith("data:image"):
            assert max(Image.open(io.BytesIO(data)).size) <= 960
        else:
            assert data[4:8] == b"ftyp"
    assert kinds == {"data:image/jpeg;base64", "data:video/mp4;base64"}


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    assert all(image["alt"] for image in page.all("img"))
    assert all(video["aria-label"] for video in page.all("video"))
    assert all(drawing["aria-label"] for drawing in page.all("svg"))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    targets = {str(link["href"])[1:] for link in page.all("a")}
    assert targets <= {section["id"] for section in page.all("section")}


def test_the_page_fits_phones_and_dark_rooms(page: Page) -> None:
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    (style,) = page.inside["style"]
    assert "prefers-color-scheme: dark" in style


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    subject = make_subject("script", file=f"{NASTY}.jpg")
    data = full(NASTY)
    data = ReportData(**{**vars(data), "subjects": [subject]})
    tame, nasty = (
        Page(render_report(tmp_path / f"{name}.html", given))
        for name, given in (("tame", full()), ("nasty", data))
    )
    assert [tag for tag, _ in nasty.elements] == [tag for tag, _ in tame.elements]
    assert nasty.inside["script"] == tame.inside["script"]
    assert not any("onerror" in attributes for _, attributes in nasty.elements)
    assert "<script> cat" in re.sub(r"\s+", " ", nasty.text)
    assert NASTY in nasty.text


def test_what_is_empty_is_left_out(tmp_path: Path) -> None:
    page = Page(render_report(tmp_path / "report.html", ReportData("Nothing yet")))
    assert [section["id"] for section in page.all("section")] == ["how"]
    assert "Nothing yet" in page.text
    assert not page.all("video") and not page.all("table")


def test_a_missing_side_is_not_invented(tmp_path: Path) -> None:
    data = ReportData("One side", comparisons=[Comparison("a <tom> cat", after=make_video())])
    page = Page(render_report(tmp_path / "report.html", data))
    (video,) = page.all("video")
    assert str(video["aria-label"]).startswith("After")


@pytest.mark.parametrize(
    "values",
    [
        [(0, math.nan), (1, 0.5), (2, math.inf), (3, 0.25)],
        [(0, 0.5), (1, 0.5)],
        [(0, -2e6), (1, 3e-9), (2, 4.0)],
        [(step, 0.1 + 0.01 * (step % 7)) for step in range(2000)],
        [(0, 0.25), (1, 0.95)],
        [(0, 0.0), (1, 8.4)],
    ],
)
def test_any_loss_is_drawn_inside_its_frame(
    tmp_path: Path, values: list[tuple[int, float]]
) -> None:
    page = Page(render_report(tmp_path / "report.html", ReportData("t", losses={"part": values})))
    (drawing,) = page.all("svg")
    width, height = (float(part) for part in str(drawing["viewbox"]).split()[2:])
    for line in page.all("polyline"):
        places = [tuple(map(float, pair.split(","))) for pair in str(line["points"]).split()]
        assert 2 <= len(places) <= 240
        assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    marks = [float(str(line["y1"])) for line in page.all("line")]
    assert 3 <= len(marks) <= 6
    assert all(0 <= mark <= height for mark in marks)


def test_a_single_value_has_no_curve(tmp_path: Path) -> None:
    data = ReportData("t", losses={"part": [(0, 1.0)]})
    assert not Page(render_report(tmp_path / "report.html", data)).all("svg")


def test_the_running_mean_ends_where_the_values_stay(tmp_path: Path) -> None:
    values = [(step, 1.0 if step < 10 else 0.2) for step in range(400)]
    page = Page(render_report(tmp_path / "report.html", ReportData("t", losses={"all": values})))
    assert "from 1 to 0.2 over 399 steps" in page.text


def test_scores_that_are_not_better_are_not_praised(tmp_path: Path) -> None:
    metrics = {"before": scores(0.3, frame_change=0.1), "after": scores(0.2, frame_change=0.2)}
    page = Page(render_report(tmp_path / "report.html", ReportData("t", metrics=metrics)))
    assert "-0.100" in page.text and "+0.100" in page.text
    assert not [cell for cell in page.all("td") if "better" in str(cell.get("class"))]
    # T.Cons is unknown on both sides.
    assert "–" in page.text


def test_scores_of_single_subjects_are_explained_and_less_bleeding_is_better(
    tmp_path: Path,
) -> None:
    crops = {"dino_i_crop": 0.5, "clip_i_crop": 0.5, "co_occurrence": 0.5, "rank1": 0.5}
    metrics = {
        "before": scores(0.3, **crops, bleed=0.75, binding_margin=None, rank1_min=0.25),
        "after": scores(0.3, **crops, bleed=0.25, binding_margin=0.1, dino_i_gain=0.4),
    }
    page = Page(render_report(tmp_path / "report.html", ReportData("t", metrics=metrics)))
    for label in ("DINO-I crop", "CLIP-I crop", "All there", "Mixed up", "Told apart", "share of"):
        assert label in page.text
    assert "lower is better" in page.text and "rank1" not in page.text
    # Only the bleeding changed, from three quarters to one quarter; the gain has no before.
    better = [cell for cell in page.all("td") if "better" in str(cell.get("class"))]
    assert len(better) == 1 and "-0.500" in page.text and "0.400" in page.text


def test_without_a_before_nothing_is_compared(tmp_path: Path) -> None:
    data = ReportData("Previews", comparisons=[Comparison("a <tom> cat", after=make_video())])
    page = Page(render_report(tmp_path / "report.html", data))
    assert "before" not in page.text.lower()


def test_how_it_was_made_says_only_what_was_done(tmp_path: Path) -> None:
    words = {"loss": [(0, 1.0), (1, 0.5)]}
    bare = ReportData("t", subjects=[make_subject()], losses=words)
    data = full()
    rich = ReportData(**{**vars(data), "losses": words | {"attention": [(0, 1.0), (1, 0.5)]}})
    said = [
        Page(render_report(tmp_path / "report.html", given)).text.partition("How it was made")[2]
        for given in (bare, rich)
    ]
    assert all("one new word per subject" in text for text in said)
    assert "attention was held" not in said[0] and "attention was held" in said[1]
    assert "videos come from a prompt alone" not in said[0]
    # One subject is composed with nobody.
    assert "common pictures" not in said[1]


def test_parts_follow_with_their_own_anchors(tmp_path: Path) -> None:
    data = ReportData(**{**vars(full()), "parts": [full("another")]})
    page = Page(render_report(tmp_path / "report.html", data))
    ids = [section["id"] for section in page.all("section")]
    assert len(ids) == len(set(ids))
    assert {"result", "part2", "part2-result", "part2-numbers", "how"} <= set(ids)
    assert {str(link["href"])[1:] for link in page.all("a")} <= set(ids)
    assert len(page.all("video")) == 6 and len(page.all("h1")) == 1
    # What the numbers mean is said once.
    assert page.text.count("Cosine similarities") == 1


def test_scores_name_their_encoders(tmp_path: Path) -> None:
    named = {"encoders": {"clip": "toybox-clip", "dino": "toybox-dino"}}
    metrics = {"before": scores(0.3, **named), "after": scores(0.3, **named)}
    page = Page(render_report(tmp_path / "report.html", ReportData("t", metrics=metrics)))
    assert "toybox-clip for CLIP, toybox-dino for DINO" in page.text


def test_an_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        render_report(tmp_path / "file" / "report.html", ReportData("t"))
