"""From a study's state to HTML: the templates and what they are given. It decides nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from customvideo import __version__
from customvideo.userstudy.items import Item
from customvideo.userstudy.plan import StudyPlan
from customvideo.userstudy.store import Place

__all__ = ["Pages", "Paths", "environment", "style"]

_HEADINGS = {
    403: "Not here, or no longer",
    404: "There is nothing here",
    409: "Answered already",
    413: "Too much",
}
_STYLES = ("style.css.j2", "bench.css.j2", "study/study.css")


class Paths:
    """Where the study's pages are, as the browser that asks sees them."""

    def __init__(self, request: Request) -> None:
        self._root = str(request.scope.get("root_path", ""))
        self._origin = f"{request.url.scheme}://{request.url.netloc}"

    def to(self, *parts: str) -> str:
        """The path of a page below the study's own."""
        return f"{self._root}/{'/'.join(quote(part, safe='') for part in parts)}"

    def rater(self, token: str) -> str:
        """The path of a rater's page."""
        return self.to("r", token)

    def link(self, token: str) -> str:
        """The whole address of a rater's page, to be kept."""
        return self._origin + self.rater(token)


class Pages:
    """The pages of one study."""

    def __init__(self, plan: StudyPlan) -> None:
        self._plan = plan
        self._environment = environment()
        script = files("customvideo").joinpath("templates", "study", "study.js").read_bytes()
        # A name that changes with the content: browsers may keep it for ever.
        self._style = f"{_short(style().encode())}.css"
        self._script = f"{_short(script)}.js"
        self.static: dict[str, tuple[bytes, str]] = {
            self._style: (style().encode(), "text/css"),
            self._script: (script, "text/javascript"),
        }

    def front(
        self, paths: Paths, form: str, *, problem: str = "", unfinished: str | None = None
    ) -> HTMLResponse:
        """The first page; `unfinished` is the token of a rater whom the browser remembers."""
        go_on = paths.rater(unfinished) if unfinished else ""
        consent = [part for part in self._plan.consent.split("\n\n") if part.strip()]
        told = {"form": form, "problem": problem, "go_on": go_on, "consent": consent}
        return self._page(paths, "front", action=paths.to("join"), **told)

    def comparison(  # noqa: PLR0913 - what stands on the page
        self,
        paths: Paths,
        token: str,
        place: Place,
        *,
        videos: Sequence[str],
        item: Item,
        form: str,
        given: Mapping[str, str] | None = None,
    ) -> HTMLResponse:
        """The page of one comparison; `given` are answers of an incomplete form."""
        width, height = item.size
        return self._page(
            paths,
            "compare",
            form=form,
            place=place,
            videos=list(zip("AB", videos, strict=True)),
            prompt=marked(item.prompt),
            subjects=[
                {
                    "word": one.word.strip("<>"),
                    "category": one.category,
                    "photos": [paths.to("media", name) for name in one.photos],
                }
                for one in item.references
            ],
            questions=self._plan.questions,
            given=given or {},
            problem=given is not None,
            width=width,
            height=height,
            across=width >= 1.25 * height,
            action=paths.rater(token),
            link=paths.link(token),
        )

    def thanks(self, paths: Paths, total: int) -> HTMLResponse:
        """The last page."""
        texts = [part for part in self._plan.thanks.split("\n\n") if part.strip()]
        return self._page(paths, "thanks", texts=texts, total=total)

    def notice(self, paths: Paths, status: int, text: str, *, on: str = "") -> HTMLResponse:
        """A sentence about what is not possible; `on` is the token of a rater who may go on."""
        heading = _HEADINGS.get(status, "That did not work")
        told = {"heading": heading, "text": text, "go_on": paths.rater(on) if on else ""}
        page = self._page(paths, "notice", **told)
        page.status_code = status
        return page

    def results(self, paths: Paths, found: Mapping[str, Any]) -> HTMLResponse:
        """How the study stands."""
        return self._page(paths, "results", download=paths.to("results"), **found)

    def _page(self, paths: Paths, template: str, **context: Any) -> HTMLResponse:
        text = self._environment.get_template(f"study/{template}.html.j2").render(
            plan=self._plan,
            version=__version__,
            home=paths.to(""),
            style=paths.to("static", self._style),
            script=paths.to("static", self._script),
            **context,
        )
        return HTMLResponse(text)


def environment() -> jinja2.Environment:
    """The templates, with everything escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("customvideo", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def style() -> str:
    """The style of all pages of a study."""
    folder = files("customvideo").joinpath("templates")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in _STYLES)


def marked(prompt: str) -> Markup:
    """The prompt, escaped, its learned words marked and without their brackets."""
    pieces = []
    for index, part in enumerate(prompt.split("<")):
        word, closed, rest = part.partition(">")
        if index and closed and word.replace("-", "").replace("_", "").isalnum():
            pieces.append(Markup('<span class="word">{}</span>{}').format(word, rest))
        else:
            pieces.append(escape(f"<{part}" if index else part))
    return Markup("").join(pieces)


def _short(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
