"""MuDI's score on features made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from customvideo.evaluation.detect_and_compare import detect_and_compare, own_similarity
from tests.evaluation.angles import at, cos

TOM, REX = at(0), at(90)


def test_the_references_own_matrix_is_made_of_all_pairs() -> None:
    photos = [at(0, 60), at(90, 90)]
    # A photo's pair with itself counts: (1 + 1 + 2 cos 60) / 4.
    expected = [[0.75, cos(30) / 2], [cos(30) / 2, 1]]
    np.testing.assert_allclose(own_similarity(photos), expected, atol=1e-12)


def test_one_of_each_is_perfect_in_any_order() -> None:
    assert detect_and_compare(at(0, 90), [TOM, REX]) == pytest.approx(1)
    assert detect_and_compare(at(90, 0), [TOM, REX]) == pytest.approx(1)


def test_the_distance_is_that_of_the_matrices() -> None:
    # Rows (cos 30, sin 30) and (0, 1) against the identity.
    distance = math.hypot(cos(30) - 1, 0.5)
    assert detect_and_compare(at(30, 90), [TOM, REX]) == pytest.approx(1 - distance)


def test_two_of_one_are_worse_than_one_alone() -> None:
    assert detect_and_compare(at(0), [TOM, REX]) == 0
    assert detect_and_compare(at(0, 45, 90), [TOM, REX]) == 0
    assert detect_and_compare(torch.zeros(0, 0), [TOM, REX]) == 0
    assert detect_and_compare(at(0, 0), [TOM, REX]) == pytest.approx(1 - math.sqrt(2))


def test_the_first_subject_chooses_first() -> None:
    # Thing 0 is best for both; greedily it goes to the first, and 60 degrees to the second.
    found = np.array([[cos(40), cos(50)], [cos(60), cos(30)]])
    distance = float(np.linalg.norm(found - np.eye(2)))
    assert detect_and_compare(at(60, 40), [TOM, REX]) == pytest.approx(1 - distance)


def test_alike_subjects_may_look_alike() -> None:
    assert detect_and_compare(at(0, 0), [at(0), at(0)]) == pytest.approx(1)


def test_a_single_subject_can_be_compared_too() -> None:
    assert detect_and_compare(at(60), [TOM]) == pytest.approx(0.5)
