"""What the verbs of `customvideo study` do, from arguments to lines of text.

Web framework and database are loaded when a verb needs them, and are told to be missing by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from customvideo.errors import StudyError

__all__ = ["close", "new", "power", "serve", "tally"]

Say = Callable[[str], None]

_NEEDED = ("alembic", "fastapi", "itsdangerous", "python_multipart", "sqlalchemy", "uvicorn")
_RATERS = (10, 20, 30, 40, 60, 80, 120)
_WANTED = 0.8


def new(  # noqa: PLR0913 - where videos come from, and what is asked about them
    folder: Path,
    *,
    videos: Sequence[str],
    prompts: Path | None,
    subjects: Sequence[str],
    bench: Path | None,
    methods: Sequence[str],
    items: int | None,
    settings: dict[str, Any],
    say: Say,
) -> None:
    """Make a study of folders of videos, or of a benchmark's run.

    Raises:
        UserError: see `sources` and `making`.
    """
    from customvideo.userstudy.making import new_study
    from customvideo.userstudy.sources import from_benchmark, from_folders

    if (bench is None) == (not videos):
        raise StudyError("Say where the videos are: either --videos METHOD=DIR … or --bench DIR.")
    if bench is not None:
        if prompts or subjects:
            raise StudyError("A benchmark knows its prompts and subjects; leave those flags out.")
        found = from_benchmark(bench, methods)
    else:
        if methods:
            raise StudyError("--method chooses among a benchmark's methods; leave it out.")
        found = from_folders(videos, prompts, subjects)
    new_study(folder, found, items=items, settings=settings, say=say)


def serve(  # noqa: PLR0913 - a server's settings
    folder: Path,
    *,
    host: str,
    port: int,
    database: str | None,
    proxies: Sequence[str],
    prefix: str,
    say: Say,
) -> None:
    """Serve a study until it is stopped.

    Raises:
        UserError: the study, the database or the address cannot be used.
    """
    _require_extra()
    from customvideo.userstudy.serving import serve as run

    run(folder, host=host, port=port, database=database, proxies=proxies, prefix=prefix, say=say)


def tally(folder: Path, out: Path | None, database: str | None, say: Say) -> None:
    """Count the votes, write tables, plots and raw votes, and say the outcome.

    Raises:
        UserError: there is no study, or it was changed since somebody voted.
    """
    _require_extra()
    from customvideo.userstudy.results import FILES, write_results
    from customvideo.userstudy.store import Store
    from customvideo.userstudy.study import open_study

    study = open_study(folder)
    with Store(folder, database) as store:
        found = write_results(out or folder / "tally", study, store)
    say(
        f"{found.comparisons} comparisons by {found.counted} raters count; "
        f"{len(found.excluded)} of {found.raters} raters are left out."
    )
    for one in found.answers:
        if one.standings:
            order = ", ".join(
                f"{found.methods[place.method]} {place.strength.mean:+.2f}"
                for place in one.standings
            )
            say(f"{one.question.title}: {order}")
    say(f"Written to {out or folder / 'tally'}: {', '.join(FILES)}")


def close(folder: Path, database: str | None, say: Say) -> None:
    """End the voting for good.

    Raises:
        UserError: there is no study, or its database cannot be used.
    """
    _require_extra()
    from customvideo.userstudy.store import Store
    from customvideo.userstudy.study import close as end
    from customvideo.userstudy.study import open_study

    open_study(folder)
    with Store(folder, database) as store:
        end(store)
        progress = store.progress()
    say(f"Closed with {progress.raters} raters and {progress.answered} comparisons answered.")


def power(  # noqa: PLR0913 - what a simulated study is made of
    folder: Path | None,
    *,
    methods: int,
    prompts: int,
    per_rater: int,
    rate: float,
    spread: float,
    raters: Sequence[int],
    trials: int,
    seed: int,
    say: Say,
) -> None:
    """Say how often studies with so many raters find a preference of `rate`.

    Raises:
        UserError: the numbers make no study.
    """
    from customvideo.userstudy.power import Scenario, estimate_power

    if folder is not None:
        from customvideo.userstudy.study import open_study

        study = open_study(folder)
        methods, prompts = len(study.items.methods), len(study.items.items)
        per_rater = study.plan.per_rater
    scenario = Scenario(methods, prompts, per_rater, rate, spread)
    found = estimate_power(scenario, raters or _RATERS, trials=trials, seed=seed)
    say(
        f"{methods} methods, {prompts} prompts, {per_rater} comparisons a rater; the best is "
        f"preferred to each other one in {100 * rate:g} %."
    )
    say("raters  votes a pair  clear lead over one  over every other")
    for one in found:
        say(
            f"{one.raters:6d}  {one.votes:12.0f}  {100 * one.one:17.0f} %  "
            f"{100 * one.every:14.0f} %"
        )
    enough = next((one.raters for one in found if one.every >= _WANTED), None)
    say(
        f"{enough} raters find all leads in {100 * _WANTED:.0f} % of the studies."
        if enough
        else f"None of these finds all leads in {100 * _WANTED:.0f} % of the studies; ask for more."
    )


def _require_extra() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise StudyError(
            f"The user study needs {missing[0].replace('_', '-')}; install what it needs with: "
            "pip install 'customvideo[study]'."
        )
