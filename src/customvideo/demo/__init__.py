"""The demo: toys from photos into one video, offline, on any computer, in two acts.

It plays the user: photo folders are written, and from there on everything is what a user's own
photos would go through. The first act shows two toys of different categories, the second two of
one, which are harder to keep apart. Before and after are the same prompts and seeds, once with the
bare categories and once with the learned words.

    subjects/<name>/      photos          videos/{before,after}/<place>.mp4
    adapter.safetensors   what is learned attention/<place>.mp4  where the words looked
    same_category/        the second act, the same files inside
    metrics.json          the scores      report.html            all of it to look at

`acts` is what is shown, `stage` how one act is played, `ledger` what a stopped demo has done
already, `countdown` how long the rest takes, `page` the report.
"""

from __future__ import annotations

from customvideo.demo.play import METRICS, run

__all__ = ["METRICS", "run"]
