"""The table of methods, and what it says of a name or an option it does not know."""

from __future__ import annotations

import pytest
import torch

from customvideo import tables
from customvideo.errors import ConfigError
from customvideo.methods.base import (
    METHODS,
    Columned,
    PriorPlan,
    Staged,
    class_columns,
    load_method,
    method_class,
)
from customvideo.methods.custom_diffusion import CustomDiffusion
from customvideo.methods.customvideo import CustomVideo, CustomVideoConfig


@pytest.mark.parametrize("name", METHODS)
def test_every_row_is_a_method(name: str) -> None:
    cls = method_class(name)
    method = load_method(name)
    assert type(method) is cls
    assert method.name == name
    assert isinstance(method.config, cls.config_class)
    members = ("trainable", "scenes", "watches", "prior", "losses", "score")
    assert all(callable(getattr(method, member)) for member in members)


def test_options_reach_the_method() -> None:
    method = load_method("customvideo", {"nu": 0.1, "compose": "paste"})
    assert method.config == CustomVideoConfig(nu=0.1, compose="paste")


def test_an_unknown_method_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no method 'custmvideo'; did you mean 'customvideo'"):
        load_method("custmvideo")
    with pytest.raises(ConfigError, match=r"no method 'zzz'; known are custom.*customvideo"):
        load_method("zzz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"atention_weight": 1}, "no setting 'atention_weight'; did you mean 'attention_weight'"),
        ({"nu": -1}, "'nu' cannot be -1: it should be greater than or equal to 0"),
        ({"vectors": 1.5}, "'vectors' cannot be 1.5: it should be a valid integer"),
        (
            {"compose": "glue"},
            "'compose' cannot be 'glue': it should be 'paste', 'panel', 'mixed', 'separate' or",
        ),
    ],
)
def test_a_wrong_option_is_one_sentence(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_method("customvideo", options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_other_packages_add_rows_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "theirs", "customvideo.methods.customvideo:CustomVideo"

    monkeypatch.setattr(tables, "entry_points", lambda group: [Point] if group else [])
    assert method_class("theirs") is CustomVideo


def test_a_prior_prompt_names_its_category() -> None:
    assert PriorPlan(("cat",)).prompt("cat") == "a cat"
    assert PriorPlan(("cat",), template="photo of {category}").prompt("cat") == "photo of cat"


def test_a_method_owes_nothing_that_is_optional() -> None:
    assert not isinstance(CustomDiffusion(), Staged | Columned)


def test_the_class_follows_its_word() -> None:
    words = torch.zeros(2, 2, 8)
    words[0, 0, 2] = 1
    words[0, 1, 5:7] = 0.5
    found = class_columns(words)
    assert found.shape == words.shape
    assert found.nonzero().tolist() == [[0, 0, 3], [0, 1, 7]]
    assert found.max() == 1
