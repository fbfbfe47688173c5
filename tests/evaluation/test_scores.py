"""What derives from rows: worst cases, the confusion matrix, rates, and the base model's range."""

from __future__ import annotations

import json
from typing import Any

import pytest

from customvideo.evaluation.scores import Row, Scores


def row(video: int = 0, subject: str = "tom", prompt: str = "a cat", **more: Any) -> Row:
    plain: dict[str, Any] = dict.fromkeys(
        ("clip_t", "clip_t_scaled", "clip_i", "dino_i", "t_cons", "t_cons_all_pairs"), 0.5
    )
    return Row(video, prompt, subject, **{**plain, "frame_change": 0.1, **more})


def found(**more: Any) -> dict[str, Any]:
    """What a segmenter adds."""
    return {"co_occurrence": 1.0, "present": 1.0, **more}


def test_the_worst_are_the_least_and_what_nine_of_ten_do_better_than() -> None:
    rows = tuple(row(video, dino_i=video / 10) for video in range(11))
    worst = Scores(rows).worst()
    assert worst["dino_i"] == {"min": 0, "decile": pytest.approx(0.1)}
    assert set(worst) == {"clip_i", "dino_i"}
    # Every subject's row counts, and unknown ones do not.
    rows = (row(0, dino_i_crop=0.4, **found()), row(0, "rex", dino_i_crop=0.0, **found()))
    worst = Scores((*rows, row(1, **found()))).worst()
    assert worst["dino_i_crop"] == {"min": 0, "decile": pytest.approx(0.04)}
    assert worst["rank1"] == {"min": None, "decile": None}


def test_failures_are_rates_over_videos_and_subjects() -> None:
    rows = (
        row(0, **found(blend=True, drop=False, copy=None), freeze=True),
        row(0, "rex", **found(blend=False, drop=False, copy=None), freeze=True),
        row(1, **found(blend=None, drop=True, copy=None), freeze=False),
    )
    summary = Scores(rows).summary()
    assert (summary["blend"], summary["drop"]) == (0.5, 0.5)
    assert summary["copy"] is None and summary["freeze"] == 0.5


def test_without_a_segmenter_freezing_is_the_only_failure_known() -> None:
    summary = Scores((row(freeze=False),)).summary()
    assert summary["freeze"] == 0
    assert not {"blend", "drop", "copy", "headline", "detect_and_compare"} & set(summary)


def test_the_confusion_matrix_is_of_shares_by_name() -> None:
    rows = (
        row(0, "tom", seen_as={"tom": 3, "rex": 1}, **found()),
        row(0, "rex", seen_as={"tom": 0, "rex": 2}, **found()),
        row(1, "tom", seen_as={"tom": 3, "mia": 1}, **found()),
        row(1, "mia", seen_as={"tom": 0, "mia": 0}, **found()),
    )
    assert Scores(rows).confusion() == {
        "tom": {"tom": 6 / 8, "rex": 1 / 8, "mia": 1 / 8},
        "rex": {"tom": 0, "rex": 1},
    }
    assert Scores((row(),)).confusion() == {}


def test_the_dictionary_is_json() -> None:
    rows = (row(seen_as={"tom": 1}, blend=None, drop=False, **found()),)
    written = json.loads(json.dumps(Scores(rows).to_dict(), allow_nan=False))
    assert written["confusion"] == {"tom": {"tom": 1}}
    assert written["worst"]["dino_i"] == {"min": 0.5, "decile": 0.5}
    assert written["rows"][0]["seen_as"] == {"tom": 1}
    assert written["rows"][0]["drop"] is False and written["rows"][0]["blend"] is None


def moving(*values: float, prompt: str = "a cat", **more: Any) -> tuple[Row, ...]:
    return tuple(row(k, prompt=prompt, motion=value, **more) for k, value in enumerate(values))


def test_frozen_is_under_the_base_model_s_range_for_the_prompt() -> None:
    base = Scores(moving(10, 10, 10, 10, 10))
    still, lively = moving(9, 11, dynamic_degree=0.0, freeze=True)
    assert [one.freeze for one in Scores((still, lively)).against(base).rows] == [True, False]
    assert Scores((still,)).against(Scores(())).rows[0].freeze is True
    assert Scores((row(),)).against(base).rows[0].freeze is None


def test_of_few_videos_of_a_prompt_all_prompts_are_the_range() -> None:
    base = Scores((*moving(10), *moving(1, 1, 1, 1, 1, 1, 1, 1, prompt="a dog")))
    (changed,) = Scores(moving(5)).against(base).rows
    assert changed.freeze is False
    many = Scores((*moving(10, 10, 10, 10, 10), *moving(1, 1, 1, 1, prompt="a dog")))
    assert Scores(moving(5)).against(many).rows[0].freeze is True


def test_a_video_s_motion_counts_once_however_many_subjects_it_has() -> None:
    pair = [row(0, name, motion=1.0) for name in ("tom", "rex", "mia", "leo")]
    base = Scores((*pair, *(row(k, motion=10.0) for k in range(1, 5))))
    # The 20th percentile of 1, 10, 10, 10, 10 is 8.2; of 1, 1, 1, 1, 10, 10, 10, 10 it is 1.
    assert Scores(moving(5)).against(base).rows[0].freeze is True


def test_copies_are_measured_by_the_subject_s_own_base() -> None:
    near = {"closest_pair": 0.6, **found()}
    base = Scores((row(0, "tom", nearness=0.5, **found()), row(0, "rex", nearness=0.99, **found())))
    tom = row(0, "tom", nearness=0.95, copy=True, **near)
    rex = row(0, "rex", nearness=0.95, copy=True, **near)
    changed = Scores((tom, rex)).against(base)
    assert [one.copy for one in changed.rows] == [True, False]
    # Without a segmenter nothing is said.
    assert Scores((row(),)).against(base).rows[0].copy is None
    assert changed.rows[0].nearness == 0.95 and changed.references == "photo"
