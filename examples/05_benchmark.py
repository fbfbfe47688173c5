"""A benchmark of your own: two entries on three toys, scored alike, in one table.

Run it from anywhere: python examples/05_benchmark.py
It is far too small to mean anything; `customvideo bench run` does the same at its full size. Stop
it and start it again as you like: what is finished is not done twice.
"""

from __future__ import annotations

from pathlib import Path

from customvideo.benchmark.commands import run, table
from customvideo.benchmark.plan import BenchPlan
from customvideo.benchmark.rows import read_rows
from customvideo.toybox.customstudio import studio, write_subject

OUT = Path("runs/examples")

PLAN = BenchPlan(
    edition=str(OUT / "toys"),
    pairs=2,
    prompts=1,
    seeds=1,
    # The label, and what it changes of CustomVideo's packaged recipe.
    entries={"customvideo": {}, "customvideo-no-control": {"attention_weight": 0.0}},
    # What all entries change: without this, it would take ten times as long.
    changes={"backbone": "toybox", "steps": 8, "pool": 8, "prior_weight": 0.0}
    | {"sampling": {"num_steps": 4, "frames": 4}},
)


def main() -> None:
    # Any folder of subject folders is an edition; its combinations are all pairs.
    for name in ("ida", "rex", "tom"):
        write_subject(OUT / "toys" / name, studio().subject(name).individual, name)

    ended = run(PLAN, OUT / "bench", say=print)
    for row in read_rows(ended.rows):
        print(f"{row.method:>24} {row.combination} {row.subject}: DINO-I {row.dino_i_crop:.3f}")
    table(OUT / "bench", say=print)


if __name__ == "__main__":
    main()
