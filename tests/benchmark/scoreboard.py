"""Made-up results of a small benchmark, with known truth, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from customvideo.benchmark.rows import ResultRow

NOUNS = ("cat", "dog", "rabbit", "teapot")
SKILL = {
    "base": -0.25,
    "ceiling": 0.30,
    "custom_diffusion": -0.07,
    "dreambooth": -0.12,
    "dreamvideo": -0.06,
    "customvideo": 0.0,
    "customvideo-no-control": -0.08,
    "customvideo-no-prior": -0.003,
}
"""Label -> how much higher its identity is than CustomVideo's, on average."""


def make_rows(
    labels: Sequence[str] = tuple(SKILL), pairs: int = 16, larger: int = 7, prompts: int = 2
) -> list[ResultRow]:
    """Rows of `pairs` pairs, half of one category, and `larger` triples and quadruples each.

    Every subject set has a difficulty that all methods share, so differences are surer than values.
    """
    sets = [(2, index) for index in range(pairs)]
    sets += [(size, index) for size in (3, 4) for index in range(larger)]
    rows: list[ResultRow] = []
    for size, index in sets:
        difficulty = np.random.default_rng([size, index]).normal(0, 0.12)
        for number, label in enumerate(labels):
            rng = np.random.default_rng([size, index, number])
            for prompt in range(prompts):
                rows += _video(label, (size, index, prompt), difficulty, rng)
    return rows


def with_method(rows: Sequence[ResultRow], method: str) -> list[ResultRow]:
    """The same rows under another label."""
    return [replace(row, method=method) for row in rows]


def _video(
    label: str, where: tuple[int, int, int], difficulty: float, rng: np.random.Generator
) -> list[ResultRow]:
    size, index, prompt = where
    same = size == 2 and index % 2 == 0
    skill = SKILL.get(label, -0.1)
    identity = 0.62 + skill - difficulty - 0.05 * (size - 2) - 0.06 * same + rng.normal(0, 0.03)
    bleed = float(np.clip(0.25 - skill + 0.2 * same + rng.normal(0, 0.08), 0, 1))
    shared = {
        "clip_t": float(0.31 - 0.01 * size + rng.normal(0, 0.01)),
        "t_cons": float(0.95 + rng.normal(0, 0.005)),
        "co_occurrence": float(np.clip(0.9 - 0.15 * (size - 2) + skill / 2, 0, 1)),
        "bleed": bleed if rng.random() > 0.1 else None,
        "binding_margin": float(0.3 - bleed),
        "dynamic_degree": float(rng.random() < 0.8),
        "frame_change": float(0.05 + rng.normal(0, 0.005)),
        "drop": float(rng.random() < 0.1 * size),
        "blend": float(rng.random() < bleed),
        "freeze": 0.0,
        "train_seconds": 150.0 + 5 * rng.random(),
        "sample_seconds": 3.4,
        "trained_parameters": 1_900_000.0,
        "peak_memory_mb": 812.0,
        "adapter_bytes": 3_812_345.0,
    }
    rows = []
    for place in range(size):
        noun = NOUNS[index % 4 if same else (index + place) % 4]
        own = float(np.clip(identity + rng.normal(0, 0.03), 0, 1))
        rows.append(
            ResultRow(
                method=label,
                combination=f"set{size}-{index:02}",
                subjects=size,
                same_category=same,
                prompt=prompt,
                seed=0,
                subject=f"s{size}{index}{place}",
                category=noun,
                small=(index + place) % 3 == 0,
                dino_i=own - 0.2,
                clip_i=own + 0.1,
                dino_i_crop=own,
                headline=own * (1 - bleed),
                rank1=float(rng.random() < own + 0.3),
                **shared,
            )
        )
    return rows
