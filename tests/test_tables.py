"""Tables: rows of our own and of other packages, and names that are nobody's."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from customvideo import tables
from customvideo.errors import ConfigError

OURS = {"first": "os:getcwd", "second": "os.path:join"}


def test_packages_add_rows_and_take_over_none(monkeypatch: pytest.MonkeyPatch) -> None:
    added = [EntryPoint("third", "os:sep", "group"), EntryPoint("first", "os:sep", "group")]
    monkeypatch.setattr(tables, "entry_points", lambda group: added if group == "group" else [])
    assert tables.all_rows(OURS, "group") == {**OURS, "third": "os:sep"}
    assert tables.all_rows(OURS, "other") == tables.all_rows(OURS) == OURS


def test_a_row_is_imported_when_it_is_asked_for() -> None:
    import os

    assert tables.look_up("first", OURS, "thing", ConfigError) is os.getcwd


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("frist", "There is no thing 'frist'; did you mean 'first'?"),
        ("zzz", "There is no thing 'zzz'; known are first, second."),
    ],
)
def test_an_unknown_name_is_one_sentence(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tables.look_up(name, OURS, "thing", ConfigError)
    assert str(caught.value) == words
