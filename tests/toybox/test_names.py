"""Named individuals: fixed, one token each, in three scenes of ten, never a benchmark subject."""

from __future__ import annotations

import numpy as np

from customvideo.toybox import models, names
from customvideo.toybox.captions import vocabulary
from customvideo.toybox.customstudio import held_out, studio
from customvideo.toybox.recipe.dataset import Split, described
from customvideo.toybox.world import CATEGORIES


def test_there_are_forty_a_category_and_none_is_held_out() -> None:
    cast = names.named_individuals()
    for category in CATEGORIES:
        assert sum(one.category == category for one in cast.values()) == 40
    assert len(set(cast.values())) == len(cast) == 520
    assert not any(held_out(one) for one in cast.values())


def test_a_name_is_one_token_and_no_other_word() -> None:
    tokenizer = models.build_tokenizer([*vocabulary(), *names.names()])
    assert all(len(tokenizer.tokenize(name)) == 1 for name in names.names())
    taken = {*vocabulary(), *(subject.name for subject in studio().subjects)}
    assert not taken & set(names.names())


def test_three_scenes_of_ten_have_a_named_individual_mostly_called_by_name() -> None:
    rng = np.random.default_rng(0)
    split = Split("pictures", 600, 1)
    worlds = [split.world(5, index) for index in range(600)]
    known = [world for world in worlds if any(map(names.name_of, world.individuals))]
    assert 0.25 < len(known) / len(worlds) < 0.35
    called = 0
    for world in known:
        words = set(described(world, rng)[0].split())
        called += bool(words & {names.name_of(one) for one in world.individuals})
    assert called / len(known) > 0.8


def test_a_name_stands_before_its_own_noun() -> None:
    name, individual = next(iter(names.named_individuals().items()))
    split = Split("lone", 400, 1, kind="lone")
    rng = np.random.default_rng(0)
    for index in range(400):
        world = split.world(1, index)
        assert len(world.individuals) == 1
        if world.individuals[0] == individual:
            break
    world = type(world)(**{**vars(world), "individuals": (individual,)})
    texts = [described(world, rng)[0] for _ in range(20)]
    assert any(f"{name} {individual.category}" in text for text in texts)
