"""How good videos are, in numbers: encoders see, metrics count, `evaluate` puts both together."""

from __future__ import annotations
