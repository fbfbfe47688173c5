"""The pages of a study: consent, comparisons, thanks, and the results for who has their key.

Everything works without JavaScript. A rater is whoever has their link, so no answer tells other
sites where it came from, and a form says, signed, whose it is and what it is about. What a page
looks like is in `templates/study`; numbers are made in `customvideo.userstudy.tally`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response

from customvideo.errors import StudyError
from customvideo.userstudy.guards import BehindProxy, Guard, Network
from customvideo.userstudy.items import MEDIA
from customvideo.userstudy.pages import Pages, Paths
from customvideo.userstudy.results import Results
from customvideo.userstudy.store import Place, Store
from customvideo.userstudy.study import Study
from customvideo.userstudy.tokens import Forged, Keys

__all__ = ["make_app"]

_VISIT, _RATER, _RESULTS = "visit", "rater", "results"
_KINDS = {".mp4": "video/mp4", ".webm": "video/webm", ".jpg": "image/jpeg", ".gif": "image/gif"}
_FOREVER = "private, max-age=604800, immutable"
_WEEKS = 8 * 7 * 24 * 3600
_SIDES = ("left", "right")
_NOWHERE = "This link leads nowhere. Check that it is whole."


def make_app(
    study: Study,
    store: Store,
    keys: Keys,
    *,
    trusted: Sequence[Network] = (),
    prefix: str = "",
) -> BehindProxy:
    """The study as an ASGI application; see `BehindProxy` for `trusted` and `prefix`."""
    site = _Site(study, store, keys)
    app = FastAPI(title=study.plan.title, docs_url=None, redoc_url=None, openapi_url=None)
    routes = (
        ("/", site.front, "GET"),
        ("/join", site.join, "POST"),
        ("/r/{token}", site.show, "GET"),
        ("/r/{token}", site.vote, "POST"),
        ("/media/{name}", site.media, "GET"),
        ("/static/{name}", site.static, "GET"),
        ("/results", site.results, "GET"),
        ("/results/{name}", site.download, "GET"),
    )
    for path, endpoint, method in routes:
        methods = [method, "HEAD"] if method == "GET" else [method]
        app.add_api_route(path, endpoint, methods=methods, response_model=None)
    app.add_exception_handler(HTTPException, site.refuse)
    return BehindProxy(Guard(app), trusted, prefix)


class _Site:
    """The endpoints; one for each page or action."""

    def __init__(self, study: Study, store: Store, keys: Keys) -> None:
        self._study, self._store, self._keys = study, store, keys
        self._pages = Pages(study.plan)
        self._results = Results(study, store)
        self._files = study.items.files

    def front(self, request: Request) -> Response:
        """What it is about, and the form to agree to it."""
        self._require_open(request)
        return self._front(request)

    async def join(self, request: Request) -> Response:
        """Take a rater in who agreed."""
        form = await _form(request)
        return await run_in_threadpool(self._join, request, form)

    def show(self, request: Request, token: str) -> Response:
        """The rater's next comparison, or thanks."""
        return self._show(request, token, self._place(token))

    async def vote(self, request: Request, token: str) -> Response:
        """Keep a rater's answers, and go on to the next comparison."""
        form = await _form(request)
        return await run_in_threadpool(self._vote, request, token, form)

    def media(self, name: str) -> Response:
        """A video or photo, by its random name; ranges are served."""
        # The name is looked up, not joined to a path that somebody else wrote.
        if name not in self._files:
            raise HTTPException(404)
        path = self._study.folder / MEDIA / name
        kind = _KINDS.get(path.suffix, "application/octet-stream")
        return FileResponse(path, media_type=kind, headers={"Cache-Control": _FOREVER})

    def static(self, name: str) -> Response:
        """The style or the script."""
        found = self._pages.static.get(name)
        if found is None:
            raise HTTPException(404)
        body, kind = found
        return Response(body, media_type=kind, headers={"Cache-Control": _FOREVER})

    def results(self, request: Request, key: str = "") -> Response:
        """How the study stands, for who has the key."""
        if key and self._keys.opens_results(key):
            # From here on a cookie knows it: the address may be read over a shoulder.
            paths = Paths(request)
            answer = RedirectResponse(paths.to("results"), 303)
            path = paths.to("results")
            answer.set_cookie(_RESULTS, key, path=path, samesite="strict", **_safe(request))
            return answer
        self._require_key(request)
        return self._pages.results(Paths(request), self._results.now())

    def download(self, request: Request, name: str) -> Response:
        """One of the files that the tally writes, for who has the key."""
        self._require_key(request)
        found = self._results.file(name)
        if found is None:
            raise HTTPException(404)
        text, kind = found
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(text, media_type=kind, headers=headers)

    def refuse(self, request: Request, error: Exception) -> Response:
        """What went wrong, in a sentence, on a page like the others."""
        assert isinstance(error, HTTPException)
        return self._pages.notice(Paths(request), error.status_code, error.detail)

    def _front(self, request: Request, problem: str = "", status: int = 200) -> Response:
        visit = request.cookies.get(_VISIT) or secrets.token_urlsafe(16)
        place = self._store.place(token) if (token := request.cookies.get(_RATER)) else None
        unfinished = token if place is not None and place.comparison is not None else None
        paths = Paths(request)
        answer = self._pages.front(
            paths, self._keys.joining(visit), problem=problem, unfinished=unfinished
        )
        answer.status_code = status
        answer.set_cookie(
            _VISIT, visit, _WEEKS, path=paths.to(""), samesite="lax", **_safe(request)
        )
        return answer

    def _join(self, request: Request, form: dict[str, str]) -> Response:
        self._require_open(request)
        try:
            token = self._keys.joined(form.get("form", ""), request.cookies.get(_VISIT, ""))
        except Forged:
            problem = (
                "Please try once more. This page needs its cookie, so let your browser keep it."
            )
            return self._front(request, problem, 403)
        if form.get("consent") != "yes":
            return self._front(request, "Please agree first, or close the page.", 422)
        if not self._store.join(token, self._study.design.program, self._study.plan.most_raters):
            raise HTTPException(
                403, "Enough people have taken part already. Thank you all the same."
            )
        paths = Paths(request)
        answer = RedirectResponse(paths.rater(token), 303)
        answer.set_cookie(
            _RATER, token, _WEEKS, path=paths.to(""), samesite="lax", **_safe(request)
        )
        return answer

    def _vote(self, request: Request, token: str, form: dict[str, str]) -> Response:
        rater = self._store.rater(token)
        if rater is None:
            raise HTTPException(404, _NOWHERE)
        self._require_open(request)
        try:
            comparison, took = self._keys.voted(form.get("form", ""), rater)
        except Forged as error:
            text = "This form is not one of yours. Open your link again and answer there."
            raise HTTPException(403, text) from error
        keys = [question.key for question in self._study.plan.questions]
        answers = {key: form.get(f"q-{key}", "") for key in keys}
        given = {key: side for key, side in answers.items() if side in _SIDES}
        if len(given) < len(keys):
            place = self._place(token)
            if comparison != place.comparison:
                return RedirectResponse(Paths(request).rater(token), 303)
            return self._show(request, token, place, given)
        try:
            outcome = self._store.cast(rater, comparison, given, took)
        except StudyError as error:
            raise HTTPException(403, str(error)) from error
        if outcome == "different":
            text = "You have answered this comparison before, and the first answers count."
            return self._pages.notice(Paths(request), 409, text, on=token)
        return RedirectResponse(Paths(request).rater(token), 303)

    def _show(
        self, request: Request, token: str, place: Place, given: dict[str, str] | None = None
    ) -> Response:
        paths = Paths(request)
        if place.comparison is None or place.shown is None:
            return self._pages.thanks(paths, place.total)
        self._require_open(request)
        item = self._study.items[place.shown.item]
        sides = [item.file(side) for side in (place.shown.left, place.shown.right)]
        answer = self._pages.comparison(
            paths,
            token,
            place,
            videos=[paths.to("media", name) for name in sides],
            item=item,
            form=self._keys.voting(place.rater, place.comparison),
            given=given,
        )
        answer.status_code = 200 if given is None else 422
        return answer

    def _place(self, token: str) -> Place:
        place = self._store.place(token)
        if place is None:
            raise HTTPException(404, _NOWHERE)
        return place

    def _require_open(self, request: Request) -> None:
        if not self._study.open_in(self._store):
            raise HTTPException(403, "This study has ended. Thank you for your interest.")

    def _require_key(self, request: Request) -> None:
        if not self._keys.opens_results(request.cookies.get(_RESULTS, "")):
            text = "The results open with the link that the server printed when it was started."
            raise HTTPException(403, text)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form as browsers send them; nothing of any other body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Answers come from the page's own form.")
    async with request.form(max_files=0, max_fields=100) as form:
        return {key: value for key, value in form.items() if isinstance(value, str)}


def _safe(request: Request) -> dict[str, Any]:
    """Cookies are no script's business, and travel encrypted where the page does."""
    return {"httponly": True, "secure": request.url.scheme == "https"}
