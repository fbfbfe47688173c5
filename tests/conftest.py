"""Fixtures shared by the whole test suite; it configures nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import build_tiny_zeroscope


@pytest.fixture(scope="session")
def tiny_zeroscope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random model in ZeroScope's format; read-only by agreement."""
    return build_tiny_zeroscope(tmp_path_factory.mktemp("models") / "tiny-zeroscope")
