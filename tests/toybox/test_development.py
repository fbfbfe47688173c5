"""The pairs settings are tuned on are nobody else's."""

from __future__ import annotations

from customvideo.toybox.customstudio import held_out, look, studio
from customvideo.toybox.development import development_pairs, for_development
from customvideo.toybox.names import named_individuals


def test_six_pairs_two_of_one_category() -> None:
    pairs = development_pairs()
    assert len(pairs) == 6
    assert sum(first.category == second.category for first, second in pairs) == 2


def test_they_are_neither_the_benchmark_s_nor_the_model_s_acquaintances() -> None:
    people = [subject for pair in development_pairs() for subject in pair]
    looks = {look(subject.individual) for subject in people}
    assert len(looks) == 12
    assert not any(held_out(subject.individual) for subject in people)
    assert not looks & {look(one) for one in named_individuals().values()}
    assert not {subject.name for subject in people} & {one.name for one in studio().subjects}


def test_partners_share_no_main_colour() -> None:
    for first, second in development_pairs():
        one, other = first.individual, second.individual
        assert not {one.main, one.second} & {other.main, other.second}


def test_a_look_alike_is_recognized_whatever_its_proportions() -> None:
    subject = development_pairs()[0][0]
    taller = type(subject.individual)(**{**vars(subject.individual), "proportions": (1.0,) * 6})
    assert for_development(taller)
    assert not for_development(studio().subjects[0].individual)
