"""The votes are kept: once, by whom they are, through crashes, crowds and upgrades."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, inspect, text

from customvideo.errors import StudyError
from customvideo.userstudy.design import Design
from customvideo.userstudy.migrations import upgrade
from customvideo.userstudy.plan import StudyPlan
from customvideo.userstudy.schema import Base
from customvideo.userstudy.store import DATABASE, Place, Store
from tests.userstudy.studies import plain_items

DESIGN = Design(plain_items(), StudyPlan(per_rater=6))
POSTGRES = os.environ.get("CUSTOMVIDEO_TEST_POSTGRES")
"""The address of an empty PostgreSQL database to test with; what is in it is dropped."""


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = None
    if request.param == "postgresql":
        if POSTGRES is None:
            pytest.skip("no PostgreSQL here: CUSTOMVIDEO_TEST_POSTGRES is not set")
        url = POSTGRES
        engine = create_engine(url)
        with engine.begin() as connection:
            Base.metadata.drop_all(connection)
            connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
        engine.dispose()
    with Store(tmp_path, url) as made:
        yield made


def joined(store: Store, token: str = "one") -> Place:
    assert store.join(token, DESIGN.program, 1000)
    place = store.place(token)
    assert place is not None
    return place


def test_a_rater_goes_through_their_program(store: Store) -> None:
    place = joined(store)
    seen = []
    while place.comparison is not None and place.shown is not None:
        assert place.done == len(seen)
        seen.append(place.shown)
        assert store.cast(place.rater, place.comparison, {"text": "left"}, 1234) == "new"
        found = store.place("one")
        assert found is not None
        place = found
    assert seen == DESIGN.program(0)
    ballots = store.ballots()
    assert [one.shown for one in ballots] == seen
    assert [one.position for one in ballots] == list(range(len(seen)))
    assert {one.seconds for one in ballots} == {1.234}
    progress = store.progress()
    assert (progress.raters, progress.finished, progress.answered) == (1, 1, len(seen))


def test_the_next_rater_has_the_next_block(store: Store) -> None:
    first, second = joined(store, "one"), joined(store, "two")
    assert second.rater == first.rater + 1
    assert second.shown == DESIGN.program(second.rater - 1)[0]


def test_joining_twice_is_joining_once(store: Store) -> None:
    assert joined(store) == joined(store)
    assert store.progress().raters == 1


def test_only_so_many_are_let_in(store: Store) -> None:
    assert store.join("one", DESIGN.program, 1)
    assert not store.join("two", DESIGN.program, 1)
    assert store.join("one", DESIGN.program, 1), "who is in stays in"


def test_a_vote_sent_again_is_kept_once_and_the_first_stands(store: Store) -> None:
    place = joined(store)
    assert place.comparison is not None
    answers = {"text": "left", "motion": "right"}
    assert store.cast(place.rater, place.comparison, answers, 10) == "new"
    assert store.cast(place.rater, place.comparison, answers, 99) == "same"
    assert store.cast(place.rater, place.comparison, {**answers, "text": "right"}, 1) == "different"
    (ballot,) = store.ballots()
    assert (ballot.answers, ballot.seconds) == (answers, 0.01)


def test_nobody_votes_on_what_is_anothers(store: Store) -> None:
    one, two = joined(store, "one"), joined(store, "two")
    assert one.comparison is not None
    with pytest.raises(StudyError, match="not yours"):
        store.cast(two.rater, one.comparison, {"text": "left"}, 10)
    with pytest.raises(StudyError, match="not yours"):
        store.cast(one.rater, 10**9, {"text": "left"}, 10)
    assert not store.ballots()


def test_of_many_at_once_none_is_lost_and_none_doubled(store: Store) -> None:
    start = threading.Barrier(8)

    def go(number: int) -> int:
        start.wait()
        cast, token = 0, f"rater {number}"
        store.join(token, DESIGN.program, 1000)
        while (place := store.place(token)) and place.comparison is not None:
            answers = {"text": "left", "overall": "right"}
            outcomes = [store.cast(place.rater, place.comparison, answers, 5) for _ in range(2)]
            assert outcomes == ["new", "same"]
            cast += 1
        return cast

    with ThreadPoolExecutor(8) as pool:
        cast = list(pool.map(go, range(8)))
    ballots = store.ballots()
    assert sum(cast) == len(ballots) == 8 * len(DESIGN.program(0))
    assert all(one.answers == {"text": "left", "overall": "right"} for one in ballots)
    assert set(Counter((one.rater, one.position) for one in ballots).values()) == {1}


def test_facts_are_kept_and_replaced(store: Store) -> None:
    assert store.fact("closed") is None
    store.note("closed", "1")
    store.note("closed", "2")
    assert store.fact("closed") == "2"


def test_what_was_acknowledged_survives_a_crash(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from tests.userstudy.test_store import DESIGN, joined
from customvideo.userstudy.store import Store
store = Store(Path(sys.argv[1]))
place = joined(store)
assert store.cast(place.rater, place.comparison, {"text": "left"}, 10) == "new"
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode not in (0, 1)
    with Store(tmp_path) as store:
        assert len(store.ballots()) == 1


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path: Path) -> None:
    with Store(tmp_path) as store, store._reading() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_the_first_revision_is_upgraded_with_its_votes(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection, "0001")
        assert "facts" not in inspect(connection).get_table_names()
    engine.dispose()
    with sqlite3.connect(path) as old:
        old.execute("INSERT INTO raters VALUES (1, 'one', 5)")
        old.execute(
            "INSERT INTO comparisons VALUES (1, 1, 0, 'pair', 'item0', 'ours', 'other', 7, 1500)"
        )
        old.execute("INSERT INTO votes VALUES (1, 1, 'text', 'left')")
    old.close()
    with Store(tmp_path) as store:
        (ballot,) = store.ballots()
        assert (ballot.shown.left, ballot.answers, ballot.seconds) == (
            "ours",
            {"text": "left"},
            1.5,
        )
        store.note("closed", "now")
        assert joined(store, "two").rater == 2


def test_the_revisions_make_the_very_tables_of_the_schema(store: Store) -> None:
    with store._reading() as connection:
        found = inspect(connection)
        for name, table in Base.metadata.tables.items():
            columns = {one["name"]: one["nullable"] for one in found.get_columns(name)}
            assert columns == {one.name: one.nullable for one in table.columns}
        unique = {tuple(one["column_names"]) for one in found.get_unique_constraints("votes")}
        assert unique == {("comparison", "question")}


def test_upgrading_again_changes_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        joined(store)
    statements = []
    engine = create_engine(f"sqlite:///{tmp_path / DATABASE}")
    event.listen(
        engine, "before_cursor_execute", lambda *call: statements.append(call[2].split()[0])
    )
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
    assert not {"CREATE", "DROP", "ALTER", "INSERT", "UPDATE"} & set(statements)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "no database's address"),
        ("mssql+nothing://x/y", "no database's address"),
        ("sqlite:////nowhere/at/all.sqlite", "cannot be used"),
    ],
)
def test_addresses_that_are_none_are_told(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        Store(tmp_path, url)


def test_a_password_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        Store(tmp_path, "postgresql+psycopg://me:geheim@127.0.0.1:1/x")
    assert "geheim" not in str(caught.value)
