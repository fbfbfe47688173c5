"""Jobs: which there are, and what their digests depend on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from customvideo.backbones.base import load_backbone
from customvideo.benchmark.editions import Combination, Edition, load_edition
from customvideo.benchmark.grid import (
    Contender,
    Made,
    choose,
    job_of,
    make_jobs,
    reference_job,
)
from customvideo.benchmark.plan import BenchPlan, Entry
from customvideo.config import Recipe, apply_keys, compose_recipe
from customvideo.errors import BenchmarkError, ConfigError
from tests.benchmark.small import CATS, QUICK, a_job, write_edition
from tests.cast import make_subject


@pytest.fixture(scope="module")
def edition(tmp_path_factory: pytest.TempPathFactory) -> Edition:
    return load_edition(write_edition(tmp_path_factory.mktemp("toys")))


def test_a_job_survives_being_written_down() -> None:
    job = a_job(recipe=apply_keys(a_job().recipe, [("canvas", [64, 96]), ("nu", 0.3)]))
    again = job_of(json.loads(json.dumps(job.to_dict())))
    assert again == job and again.digest == job.digest


def test_other_models_of_a_method_are_told() -> None:
    backbone = load_backbone("toybox", device="cpu")
    plain = Contender.on(backbone, Entry("customvideo", a_job().recipe))
    assert plain.ingredients == () and "ingredients" not in a_job().to_dict()
    recipe = compose_recipe([("method", "disendiff_svd"), ("backbone", "toybox")])
    mixed = Contender.on(backbone, Entry("disendiff_svd", recipe))
    told = dict(mixed.ingredients)
    assert told.keys() == {"animator", "animator_weights"} and told["animator"] == "toybox"
    job = a_job(recipe=recipe, made=replace(a_job().made, ingredients=mixed.ingredients))
    again = job_of(json.loads(json.dumps(job.to_dict())))
    assert again == job and again.digest == job.digest
    retrained = (("animator", "toybox"), ("animator_weights", "other"))
    assert replace(job, made=replace(job.made, ingredients=retrained)).series != job.series


def test_a_model_that_cannot_be_used_names_the_entry() -> None:
    backbone = load_backbone("toybox", device="cpu")
    changes = [("method", "disendiff_svd"), ("backbone", "toybox"), ("animator", "./nowhere")]
    with pytest.raises(ConfigError, match=r"In the entry 'mine': .*no animator folder"):
        Contender.on(backbone, Entry("mine", compose_recipe(changes)))


def other_recipe(**keys: Any) -> Recipe:
    return apply_keys(compose_recipe(QUICK.items()), keys.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": other_recipe(steps=3)},
        {"recipe": other_recipe(seed=1)},
        {"recipe": other_recipe(nu=0.2)},
        {"recipe": other_recipe(sampling={"guidance": 1.0})},
        {"prompts": ("a <tom> cat and a <rex> dog", "another")},
        {"made": Made("retrained", "fp32", a_job().made.subjects)},
        {"made": Made("fingerprint", "bf16", a_job().made.subjects)},
        {"made": Made("fingerprint", "fp32", (("tom", "cat", "1a"), ("rex", "dog", "3c")))},
        {"made": Made("fingerprint", "fp32", a_job().made.subjects[::-1])},
        {"made": replace(a_job().made, ingredients=(("animator", "svd"),))},
        {"kind": "base"},
    ],
    ids=str,
)
def test_what_changes_results_makes_another_job(changes: dict[str, Any]) -> None:
    assert a_job(**changes).digest != a_job().digest


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "renamed"},
        {"combination": "a pair"},
        {"samples": ((0, 7),)},
        {"recipe": other_recipe(checkpoint_every=7, prior_cache="elsewhere")},
        {"recipe": other_recipe(masks={"segmenter": "sam"})},
    ],
    ids=str,
)
def test_what_changes_no_result_makes_none(changes: dict[str, Any]) -> None:
    assert a_job(**changes).digest == a_job().digest


def test_the_base_models_videos_depend_on_no_training() -> None:
    base = a_job(kind="base")
    assert replace(base, recipe=other_recipe(steps=9, nu=0.2)).digest == base.digest
    assert replace(base, recipe=other_recipe(sampling={"num_steps": 3})).digest != base.digest


def test_a_series_is_the_same_for_other_seeds_and_subjects() -> None:
    job = a_job()
    others = Made("fingerprint", "fp32", (("mia", "bear", "4d"), ("leo", "car", "5e")))
    assert replace(job, recipe=other_recipe(seed=5), made=others).series == job.series
    assert replace(job, recipe=other_recipe(steps=5)).series != job.series


def test_trainings_share_out_the_seeds_and_the_references_have_them_all() -> None:
    pair = Combination("tom+rex", ("tom", "rex"), ("one", "two", "three"))
    subjects = [make_subject("tom", "cat", 1), make_subject("rex", "dog", 2)]
    plan = BenchPlan(prompts=2, seeds=2, trainings=2)
    contender = Contender(Entry("mine", other_recipe(seed=40)), "fingerprint", "fp32")
    first, second = make_jobs(plan, pair, subjects, contender)
    assert first.samples == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert second.samples == ((0, 2), (0, 3), (1, 2), (1, 3))
    assert (first.recipe.seed, second.recipe.seed) == (40, 41)
    assert first.digest != second.digest and first.method == second.method == "mine"
    base = reference_job("base", plan, pair, subjects, contender)
    assert set(base.samples) == {*first.samples, *second.samples}
    true = reference_job("true", plan, pair, subjects, contender)
    assert (base.method, true.method) == ("base", "ceiling") and base.digest != true.digest
    # All prompts count, so that asking for more later is no other job.
    assert first.prompts == pair.prompts


def test_combinations_are_chosen_by_name_size_and_kind(edition: Edition) -> None:
    both = "+".join(CATS)
    assert both in [one.name for one in edition.combinations]

    def chosen(**settings: Any) -> list[str]:
        return [one.name for one in choose(BenchPlan(**settings), edition)]

    assert len(chosen()) == len(chosen(only=["2"])) == 3
    assert chosen(only=["same-category"]) == [both]
    assert len(chosen(only=["different-category", "2"])) == 2
    assert chosen(only=["+".join(reversed(CATS))]) == [both]
    assert chosen(only=["same-category", "different-category"]) == chosen()
    assert chosen(pairs=9) == chosen()


def test_few_pairs_are_spread_over_the_edition() -> None:
    edition = load_edition("toybox")
    few = choose(BenchPlan(pairs=12), edition)
    alike = [edition.same_category(one) for one in few]
    assert len(few) == 12 and {one.size for one in few} == {2}
    # Of the edition's 68, 14 are of one category and come first.
    assert sum(alike) == 3
    assert set(few) >= set(choose(BenchPlan(pairs=4), edition))


@pytest.mark.parametrize(
    ("only", "parts"),
    [
        (["tom+nobody"], ("no combination 'tom+nobody'",)),
        (["3"], ("Nothing", "other combinations")),
    ],
)
def test_combinations_that_are_not_there(
    only: list[str], parts: tuple[str, ...], edition: Edition
) -> None:
    with pytest.raises(BenchmarkError) as caught:
        choose(BenchPlan(only=only), edition)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_a_single_subject_is_no_combination(edition: Edition) -> None:
    alone = replace(edition, combinations=(Combination("tom", ("tom",), ("a <tom> cat",)),))
    with pytest.raises(BenchmarkError, match=r"'tom'.*single subject.*give it two"):
        choose(BenchPlan(), alone)


def test_digests_do_not_depend_on_where_files_lie(tmp_path: Path) -> None:
    """The backbone's path stands in the recipe, and not in the digest: its fingerprint does."""
    elsewhere = a_job().recipe.model_copy(update={"backbone": str(tmp_path)})
    assert a_job(recipe=elsewhere).digest == a_job().digest


def test_keeping_alike_subjects_apart_is_nothing_where_there_are_none() -> None:
    def essence(regions: str, *categories: str) -> str:
        recipe = apply_keys(a_job().recipe, [("sampling.regions", regions)])
        people = tuple((f"name{i}", kind, "photos") for i, kind in enumerate(categories))
        made = replace(a_job().made, subjects=people)
        return replace(a_job(), recipe=recipe, made=made).essence

    assert essence("alike", "cat", "dog") == essence("off", "cat", "dog")
    assert essence("alike", "cat", "cat") != essence("off", "cat", "cat")
    assert essence("all", "cat", "dog") != essence("off", "cat", "dog")
