"""The exception tree is what its drawing says."""

from __future__ import annotations

import pytest

from customvideo import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_in_the_tree_and_its_drawing(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.CustomVideoError)
    assert errors.__doc__ and name in errors.__doc__
    if name not in ("CustomVideoError", "UserError"):
        assert error.__bases__ == (errors.UserError,)


def test_user_errors_are_value_errors_but_others_need_not_be() -> None:
    assert issubclass(errors.UserError, ValueError)
    assert not issubclass(errors.CustomVideoError, ValueError)
