"""What a long run shows: a bar on a terminal, a line a job, and how long it will take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from customvideo.fleet.work import Outcome, Piece

__all__ = ["Say", "View", "span"]

Say = Callable[[str], None]
"""Where a line of progress goes."""


class View:
    """Follows `jobs` done by some `workers` at a time; where there is no terminal, lines go to
    `say`."""

    def __init__(
        self, jobs: Sequence[Piece], workers: int, say: Say, console: Console | None = None
    ) -> None:
        self._left = [job.kind for job in jobs]
        self._workers = max(1, workers)
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._console = console or Console(stderr=True)
        self._say = self._above if self._console.is_terminal else say
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[now]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._total = len(jobs)
        self._task = self._bar.add_task("", total=self._total, left="", now="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Say on the bar what is being done just now."""
        self._bar.update(self._task, now=text)

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._say(text)

    def ended(self, outcome: Outcome[Any]) -> None:
        """Count a job that is done or has failed."""
        job = outcome.job
        self._left.remove(job.kind)
        if outcome.ended == "done":
            self._seconds[job.kind].append(outcome.seconds)
        done = self._total - len(self._left)
        left = f"about {span(self._seconds_left())} left" if self._left else ""
        how = span(outcome.seconds) if outcome.ended == "done" else f"failed: {outcome.message}"
        rest = f" ({left})" if left else ""
        self.say(f"[{done}/{self._total}] {job.title}: {how}{rest}")
        self._bar.update(self._task, completed=done, left=left, now="")

    def _seconds_left(self) -> float:
        """What is left of each kind takes as long as that kind did, or as all did, on average."""
        every = [seconds for kind in self._seconds.values() for seconds in kind] or [0.0]
        means = {kind: _mean(self._seconds.get(kind) or every) for kind in self._left}
        return sum(means[kind] for kind in self._left) / self._workers

    def _above(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def span(seconds: float) -> str:
    """`45 s`, `12 min` or `3 h 05 min`."""
    if seconds < 60:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
