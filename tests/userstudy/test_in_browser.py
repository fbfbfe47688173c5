"""The pages in a real browser: votes by mouse, keyboard and touch, in every look, for everybody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from customvideo.userstudy.design import Shown
from customvideo.userstudy.store import Store
from customvideo.userstudy.study import open_study
from customvideo.userstudy.tally import tally
from tests.browser import SIZES, Watched, browser, open_page
from tests.userstudy.studies import Server, make_study, serving

VOTES = 12
LOOKS = [(width, scheme) for width in SIZES for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    rules = {"seconds": 0.0, "one_side": 1.0, "fewest": 0}
    checks = {"obvious": 0, "repeats": 0}
    folder = make_study(
        tmp_path_factory.mktemp("study") / "study",
        per_rater=VOTES,
        exclusion=rules,
        checks=checks,
    )
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as one:
        yield one


def join(page: Any) -> str:
    """Agree and begin; the rater's token."""
    page.get_by_label("I have read this").check()
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector("form.ballot")
    return page.url.rpartition("/")[2]


def wait_until_they_play(page: Any) -> None:
    """Asked from outside: the page's own policy forbids Playwright to ask again from within."""
    ask = "[...document.querySelectorAll('video')].every((one) => one.currentTime > 0.1)"
    for _ in range(100):
        if page.evaluate(ask):
            return
        page.wait_for_timeout(100)
    pytest.fail("the videos do not play")


def nearly_done(server: Server, token: str) -> str:
    """The path of a rater who has one comparison left."""
    study = open_study(server.folder)
    answers = dict.fromkeys((one.key for one in study.plan.questions), "left")
    with Store(server.folder) as store:
        store.join(token, study.design.program, 1000)
        while (place := store.place(token)) and place.comparison and place.done < VOTES - 1:
            store.cast(place.rater, place.comparison, answers, 5000)
    return f"/r/{token}"


def shown_to(server: Server, token: str) -> Shown:
    with Store(server.folder) as store:
        place = store.place(token)
        assert place is not None and place.shown is not None
        return place.shown


def by_mouse(page: Any, letter: str) -> None:
    for question in page.get_by_role("radiogroup").all():
        question.get_by_text(letter, exact=True).click()
    page.get_by_role("button", name="Next").or_(page.get_by_role("button", name="Finish")).click()


def by_touch(page: Any, letter: str) -> None:
    for question in page.get_by_role("radiogroup").all():
        question.get_by_text(letter, exact=True).tap()
    page.get_by_role("button", name="Next").or_(page.get_by_role("button", name="Finish")).tap()


def by_keyboard(page: Any, letter: str) -> None:
    for _ in page.get_by_role("radiogroup").all():
        page.keyboard.press("ArrowLeft" if letter == "A" else "ArrowRight")
    page.keyboard.press("Enter")


def wait_for(page: Any, done: int) -> None:
    """Wait until so many comparisons are done."""
    if done < VOTES:
        page.wait_for_selector(f"progress[value='{done}']")
    else:
        page.get_by_role("heading", name="Thank you").wait_for()


def test_twelve_votes_by_mouse_keyboard_and_touch_are_tallied(running: Any, server: Server) -> None:
    ways = [by_mouse, by_keyboard, by_touch]
    preferred = ["ours", "other", "third"]
    motion = {"has_touch": True, "reduced_motion": "no-preference"}
    watched = open_page(running, f"{server.url}/", width=SIZES[1], **motion)
    page = watched.page
    token = join(page)
    wait_until_they_play(page)
    for done in range(VOTES):
        shown = shown_to(server, token)
        best = min((shown.left, shown.right), key=preferred.index)
        ways[done % 3](page, "A" if shown.left == best else "B")
        wait_for(page, done + 1)
    page.context.close()
    assert watched.wrong == []
    study = open_study(server.folder)
    with Store(server.folder) as store:
        place = store.place(token)
        ballots = [one for one in store.ballots() if place and one.rater == place.rater]
    found = tally(ballots, study.items.methods, study.plan)
    assert len(ballots) == VOTES and (found.raters, found.counted) == (1, 1)
    for answers in found.answers:
        assert [found.methods[one.method] for one in answers.standings] == preferred
        assert sum(one.videos for one in answers.pairs.values()) == VOTES
        assert {one.mean for one in answers.pairs.values()} == {1.0}


def whole(watched: Watched) -> None:
    assert not watched.scrolls_sideways() and watched.faults() == []


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_page_is_whole_in_every_look(
    running: Any, server: Server, width: int, scheme: str
) -> None:
    watched = open_page(running, f"{server.url}/", width=width, scheme=scheme)
    page = watched.page
    whole(watched)
    page.goto(server.url + nearly_done(server, f"one {width} {scheme}"))
    page.get_by_text("Stop here and go on later").click()
    page.get_by_role("radiogroup").first.get_by_text("B", exact=True).click()
    whole(watched)
    # Buttons that fingers hit.
    for button in page.locator(".side span, .button, .plain").all():
        box = button.bounding_box()
        assert box is not None and min(box["height"], box["width"]) >= 44
    by_keyboard(page, "B")
    wait_for(page, VOTES)
    whole(watched)
    page.goto(server.results)
    page.get_by_role("heading", name="Ranking").wait_for()
    whole(watched)
    assert watched.wrong == []
    if (width, scheme) == LOOKS[0]:
        page.goto(f"{server.url}/nowhere")
        whole(watched)
    page.context.close()


def test_keys_go_back_and_pause_and_an_answer_can_be_changed(running: Any, server: Server) -> None:
    motion = {"reduced_motion": "no-preference"}
    watched = open_page(running, f"{server.url}/", width=SIZES[1], scheme="dark", **motion)
    page = watched.page
    join(page)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    checked = page.eval_on_selector_all("input:checked", "all => all.map((one) => one.value)")
    assert checked == ["right"]
    toggle = page.locator("#play")
    assert toggle.text_content() == "Pause"
    page.keyboard.press("p")
    assert toggle.text_content() == "Play"
    assert page.evaluate("[...document.querySelectorAll('video')].every((one) => one.paused)")
    # Without an answer to every question nothing is sent.
    page.get_by_role("button", name="Next").click()
    assert page.locator("progress").get_attribute("value") == "0"
    page.context.close()
    assert watched.wrong == []


def test_without_javascript_the_videos_have_controls_and_votes_count(
    running: Any, server: Server
) -> None:
    plain = {"java_script_enabled": False, "has_touch": True}
    watched = open_page(running, f"{server.url}/", width=SIZES[0], **plain)
    page = watched.page
    join(page)
    assert page.locator("video[controls]").count() == 2
    assert not page.locator(".tools").is_visible()
    by_touch(page, "A")
    wait_for(page, 1)
    page.context.close()
    assert watched.wrong == []
