"""The votes, in SQLite or PostgreSQL: whoever is told that a vote is kept can rely on it.

`Store.cast` returns after the commit has reached the disk (SQLite in WAL mode with
`synchronous=FULL`), and a vote sent twice is kept once. It knows no page and no statistics.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from customvideo.errors import StudyError
from customvideo.userstudy.design import Shown
from customvideo.userstudy.migrations import upgrade
from customvideo.userstudy.schema import Comparison, Fact, Rater, Vote

__all__ = ["DATABASE", "Ballot", "Place", "Progress", "Store", "now"]

DATABASE = "votes.sqlite"
Outcome = Literal["new", "same", "different"]
"""What became of answers: kept, known already, or others were given before and stand."""

_BUSY_SECONDS = 30


@dataclass(frozen=True)
class Place:
    """Where a rater stands: how many comparisons are done, and the next one, None at the end."""

    rater: int
    done: int
    total: int
    comparison: int | None = None
    shown: Shown | None = None


@dataclass(frozen=True)
class Ballot:
    """One answered comparison.

    Attributes:
        rater, position: whose, and at which place of their program, from 0.
        shown: what was compared.
        answers: question -> "left" or "right".
        voted: when, in milliseconds since 1970.
        seconds: how long it took.
    """

    rater: int
    position: int
    shown: Shown
    answers: Mapping[str, str]
    voted: int
    seconds: float


@dataclass(frozen=True)
class Progress:
    """How many raters came, how many are through, and how many comparisons are answered."""

    raters: int
    finished: int
    answered: int


class Store:
    """A study's database, brought to today's form when it is opened.

    `url` is SQLAlchemy's; None is `votes.sqlite` in the study's folder.

    Raises:
        StudyError: the address names no database, or it cannot be reached.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        address = _address(folder, url)
        self._lite = address.get_backend_name() == "sqlite"
        # SQLite has one writer at a time; those who wait here are served in turn, without the
        # sleeps of its own busy handler.
        self._turn = threading.Lock()
        try:
            self._engine = _engine(address)
            with self._writing() as connection:
                upgrade(connection)
        except (DBAPIError, ModuleNotFoundError) as error:
            raise StudyError(_unreachable(address, error)) from error

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def join(self, token: str, program: Callable[[int], Sequence[Shown]], most: int) -> bool:
        """Take a rater in, who will see `program(n)`, n being how many came before.

        Nothing happens if the token is known. False if there are `most` raters already.
        """
        with self._writing() as connection:
            if self._number(connection, token) is not None:
                return True
            if (connection.scalar(select(func.count()).select_from(Rater)) or 0) >= most:
                return False
            try:
                with connection.begin_nested():
                    added = connection.execute(insert(Rater).values(token=token, joined=now()))
            except IntegrityError:
                # The same form, sent twice at once: the other one made it.
                return True
            assert added.inserted_primary_key is not None
            rater = int(added.inserted_primary_key[0])
            rows = [_row(rater, index, one) for index, one in enumerate(program(rater - 1))]
            connection.execute(insert(Comparison), rows)
            return True

    def place(self, token: str) -> Place | None:
        """Where the rater with this token stands; None if there is no such rater."""
        with self._reading() as connection:
            rater = self._number(connection, token)
            if rater is None:
                return None
            own = Comparison.rater == rater
            count = select(func.count(Comparison.id), func.count(Comparison.voted)).where(own)
            total, done = connection.execute(count).one()
            wanted = (
                select(Comparison.id, *_SHOWN)
                .where(own, Comparison.voted.is_(None))
                .order_by(Comparison.position)
                .limit(1)
            )
            row = connection.execute(wanted).first()
        if row is None:
            return Place(rater, done, total)
        return Place(rater, done, total, row[0], _shown(row[1:]))

    def rater(self, token: str) -> int | None:
        """The number of the rater with this token; None if there is no such rater."""
        with self._reading() as connection:
            return self._number(connection, token)

    def cast(self, rater: int, comparison: int, answers: Mapping[str, str], took: int) -> Outcome:
        """Keep a rater's answers to a comparison; the first ones stand.

        `took` is in milliseconds. The answers are on the disk when this returns.

        Raises:
            StudyError: the comparison is not the rater's.
        """
        with self._writing() as connection:
            own = (Comparison.id == comparison) & (Comparison.rater == rater)
            taken = connection.execute(
                update(Comparison)
                .where(own, Comparison.voted.is_(None))
                .values(voted=now(), took=took)
            )
            if taken.rowcount:
                rows = [
                    {"comparison": comparison, "question": key, "choice": choice}
                    for key, choice in answers.items()
                ]
                connection.execute(insert(Vote), rows)
                return "new"
            if connection.scalar(select(Comparison.id).where(own)) is None:
                raise StudyError("This comparison is not yours; go on with your own link.")
            kept = select(Vote.question, Vote.choice).where(Vote.comparison == comparison)
            before = {row.question: row.choice for row in connection.execute(kept)}
            return "same" if before == dict(answers) else "different"

    def ballots(self) -> list[Ballot]:
        """All answered comparisons, by rater and place."""
        wanted = (
            select(
                Comparison.id,
                Comparison.rater,
                Comparison.position,
                *_SHOWN,
                Comparison.voted,
                Comparison.took,
            )
            .where(Comparison.voted.is_not(None))
            .order_by(Comparison.rater, Comparison.position)
        )
        answers: dict[int, dict[str, str]] = {}
        with self._reading() as connection:
            for row in connection.execute(select(Vote.comparison, Vote.question, Vote.choice)):
                answers.setdefault(row[0], {})[row[1]] = row[2]
            found = connection.execute(wanted).all()
        return [
            Ballot(
                row.rater,
                row.position,
                _shown(row[3:7]),
                answers.get(row.id, {}),
                row.voted or 0,
                (row.took or 0) / 1000,
            )
            for row in found
        ]

    def progress(self) -> Progress:
        """How far the study is."""
        left = (
            select(Comparison.rater).where(Comparison.voted.is_(None)).group_by(Comparison.rater)
        ).subquery()
        with self._reading() as connection:
            raters = connection.scalar(select(func.count()).select_from(Rater)) or 0
            unfinished = connection.scalar(select(func.count()).select_from(left)) or 0
            answered = connection.scalar(select(func.count(Comparison.voted))) or 0
        return Progress(raters, raters - unfinished, answered)

    def fact(self, name: str) -> str | None:
        """What is known of the study by that name."""
        with self._reading() as connection:
            return connection.scalar(select(Fact.value).where(Fact.name == name))

    def note(self, name: str, value: str) -> None:
        """Keep something known of the study, in place of what was."""
        with self._writing() as connection:
            changed = connection.execute(
                update(Fact).where(Fact.name == name).values(value=value)
            ).rowcount
            if not changed:
                connection.execute(insert(Fact).values(name=name, value=value))

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._turn if self._lite else nullcontext():
            engine = self._engine.execution_options(writes=True)
            with engine.begin() as connection:
                yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    @staticmethod
    def _number(connection: Connection, token: str) -> int | None:
        return connection.scalar(select(Rater.id).where(Rater.token == token))


_SHOWN = (Comparison.kind, Comparison.item, Comparison.left, Comparison.right)


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _shown(row: Sequence[Any]) -> Shown:
    kind, item, left, right = row
    return Shown(kind, item, left, right)


def _row(rater: int, position: int, shown: Shown) -> dict[str, Any]:
    return {
        "rater": rater,
        "position": position,
        "kind": shown.kind,
        "item": shown.item,
        "left": shown.left,
        "right": shown.right,
    }


def _address(folder: Path, url: str | None) -> URL:
    if url is None:
        return URL.create("sqlite", database=str(folder / DATABASE))
    try:
        address = make_url(url)
        address.get_dialect()
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise StudyError(
            f"'{url}' is no database's address; write postgresql+psycopg://user@host/name, or "
            "leave it out for a file in the study's folder."
        ) from error
    return address


def _engine(address: URL) -> Engine:
    if address.get_backend_name() != "sqlite":
        return create_engine(address, pool_pre_ping=True, pool_size=20)
    engine = create_engine(address, connect_args={"timeout": _BUSY_SECONDS}, pool_size=20)

    @event.listens_for(engine, "connect")
    def _set_up(raw: Any, _: Any) -> None:
        # SQLAlchemy begins transactions itself, below: the driver would begin them too late.
        raw.isolation_level = None
        for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            raw.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer that began by reading could find that somebody else has written meanwhile.
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _unreachable(address: URL, error: Exception) -> str:
    shown = address.render_as_string(hide_password=True)
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    if isinstance(error, ModuleNotFoundError):
        return (
            f"The database '{shown}' needs the package '{error.name}'; install it with: "
            f"pip install '{error.name}[binary]'."
        )
    return f"The database '{shown}' cannot be used: {reason}."
