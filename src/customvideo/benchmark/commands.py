"""What the verbs of `customvideo bench` do: run, search, score, probe, table, check,
fetch.

Each function is one verb from its arguments to files and lines of text. What the flags are called
is the command line's business, what happens to a job that of the files beside this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from customvideo.benchmark.board import OURS
from customvideo.benchmark.check import check as look_over
from customvideo.benchmark.editions import Combination, OwnFolder, load_edition, open_source
from customvideo.benchmark.fetch import fetch as get
from customvideo.benchmark.grid import Contender, Job, Kind, choose, make_jobs, reference_job
from customvideo.benchmark.job import Outcome, Worker, open_worker
from customvideo.benchmark.kit import Kit
from customvideo.benchmark.plan import BenchPlan, Entry, resolve
from customvideo.benchmark.results import collect
from customvideo.benchmark.search import log, trials
from customvideo.benchmark.store import Store
from customvideo.benchmark.tables import MAX_MB, render_tables
from customvideo.errors import BenchmarkError
from customvideo.fleet.executors import Executor, Here, follow
from customvideo.fleet.ray import OnRay, require_ray
from customvideo.fleet.work import Note, failed
from customvideo.runs.calling import command
from customvideo.runs.folder import Say, require_writable

__all__ = ["Summary", "check", "fetch", "probe", "run", "score", "search", "table"]


@dataclass(frozen=True)
class Summary:
    """How a run ended: how many jobs are done, which failed, and where the rows are."""

    done: int
    failed: tuple[Outcome, ...]
    rows: Path


def run(
    plan: BenchPlan, out: Path, *, say: Say, ray: str | None = None, retry_failed: bool = False
) -> Summary:
    """Do what is left of the plan in the folder `out`, and write all rows to `out/rows.csv`.

    `ray` is the address of a Ray cluster or "auto"; None does all in this process. A job that
    failed is told at the end, and tried again only with `retry_failed`.

    Raises:
        UserError: something about the plan, the edition or the folder cannot work; nothing is
            written then.
        Interrupted: stopped from outside; the same call goes on.
    """
    name = _found_from(plan.edition)
    edition = load_edition(name)
    combinations = choose(plan, edition)
    base, entries = resolve(plan, edition.default_backbone)
    store = Store(out)
    store.check(edition)
    require_writable(out)
    if ray is not None:
        require_ray()
    kit = Kit(edition, plan.device)
    jobs = _jobs(plan, kit, combinations, [base, *entries])
    store.create(edition, name)
    store.tidy()
    if unlabelled := store.adopt(jobs):
        say(f"{unlabelled} earlier results lose their label, which means another recipe now.")
    todo, lost = _left(store, kit, jobs, retry_failed=retry_failed)
    kept = len(jobs) - len(todo) - len(lost)
    say(f"{len(combinations)} combinations, {len(jobs)} jobs: {kept} are done, {len(todo)} to do.")
    try:
        if ray is None or not todo:
            lost += _follow(Here(Worker(store, kit).do, plan.threads), todo, say)
        else:
            opens = partial(open_worker, str(out.absolute()), name, plan.device)
            workers = OnRay[Job](ray, opens, device=plan.device, threads=plan.threads)
            with workers:
                lost += _follow(workers, todo, say)
    finally:
        rows = collect(store)
    return _summary(len(jobs), lost, rows, say)


def _opened(out: Path, device: str) -> tuple[Store, Worker]:
    """The results in `out`, and who works on them with the edition they are of."""
    store = Store(out)
    store.require()
    edition = load_edition(store.edition)
    store.check(edition)
    return store, Worker(store, Kit(edition, device))


def search(
    plan: BenchPlan, out: Path, *, say: Say, ray: str | None = None, retry_failed: bool = False
) -> Summary:
    """Do what is left of a plan whose labels are `method@setting`, log it, and say what won.

    Raises:
        UserError, Interrupted: as `run`.
    """
    ended = run(plan, out, say=say, ray=ray, retry_failed=retry_failed)
    found = trials(out)
    table = log(out, found)
    for trial in found:
        if trial.won and trial.score is not None:
            say(f"Best of {trial.method}: {trial.setting}, headline {trial.score.mean:.3f}")
    say(f"Wrote '{table}', all rows beside it.")
    return ended


def score(out: Path, *, say: Say, device: str = "auto") -> Summary:
    """Score every saved video in `out` anew, and write all rows; nothing is trained or drawn.

    Raises:
        UserError: there are no results of this version, or their edition is not found.
    """
    store, worker = _opened(out, device)
    jobs = sorted((job for job, _ in store.found()), key=lambda job: job.recipe.backbone)
    lost = _follow(Here(worker.score_again), jobs, say)
    return _summary(len(jobs), lost, collect(store), say)


def probe(
    out: Path, *, say: Say, videos: int = 1, entries: Sequence[str] = (), device: str = "auto"
) -> Summary:
    """Make the extra videos of the swap test and of retention for each trained job in `out`.

    The first `videos` of each job of `entries` (all if none are named) are probed; what is there is
    kept. Writes all rows.

    Raises:
        UserError: there are no results of this version or of such an entry, or their edition is
            not found.
    """
    store, worker = _opened(out, device)
    found = sorted(store.found(), key=lambda one: one[0].recipe.backbone)
    labels = sorted({job.method for job, _ in found if job.kind == "trained"})
    if unknown := [label for label in entries if label not in labels]:
        raise BenchmarkError(
            f"There are no results of '{unknown[0]}' in '{out}'; name one of {', '.join(labels)}."
        )
    bases = {
        (job.combination, job.made.backbone): (job, folder)
        for job, folder in found
        if job.kind == "base"
    }
    trained = [
        job
        for job, folder in found
        if job.kind == "trained" and folder.scored and job.method in (entries or labels)
    ]

    def work(job: Job, note: Note) -> Outcome:
        base = bases.get((job.combination, job.made.backbone))
        return worker.probe(job, base, videos, note)

    try:
        lost = _follow(Here(work), trained, say)
    finally:
        rows = collect(store)
    return _summary(len(trained), lost, rows, say)


def table(
    out: Path,
    target: Path | None = None,
    *,
    say: Say,
    ours: str = OURS,
    max_mb: float = MAX_MB,
) -> list[Path]:
    """Write the tables and the page of the results in `out` into `target`, or into `out/tables`.

    The page has at most `max_mb` megabytes, unless it has more without any picture or video.

    Raises:
        UserError: there are no results of this version, or no job is finished.
    """
    store = Store(out)
    store.require()
    collect(store)
    written = render_tables(out, target or out / "tables", ours=ours, max_mb=max_mb)
    if (size := written[0].stat().st_size / 1e6) > max_mb:
        say(f"Tables and plots alone make the page {size:.1f} MB.")
    say(f"Wrote {', '.join(path.name for path in written)}: open '{written[0]}'")
    return written


def check(edition: str, *, say: Say) -> bool:
    """Look an edition over, say what is wrong with it, and return whether nothing is."""
    report = look_over(edition)
    say(str(report))
    return report.sound


def fetch(edition: str, target: Path | None = None, *, say: Say) -> Path:
    """Fetch an edition's photos into `target`, or to where a run looks for them.

    Raises:
        UserError: there is no such edition, no connection, or a file is not to be had.
    """
    root = get(_found_from(edition), target, say=say)
    if target is not None:
        say(f"Next: {command('bench', 'run', '--edition', root, '--out', 'results')}")
    return root


def _found_from(edition: str) -> str:
    """What finds the edition from any folder."""
    source = open_source(edition)
    return str(source.path.absolute()) if type(source) is OwnFolder else edition


def _jobs(
    plan: BenchPlan, kit: Kit, combinations: Sequence[Combination], entries: Sequence[Entry]
) -> list[Job]:
    """All jobs of the entries, the base model's first among them.

    They come combination by combination, so that a run that is stopped has whole comparisons, and
    one base model after the other, so that each is loaded once.
    """
    names = list(dict.fromkeys(entry.recipe.backbone for entry in entries))
    jobs: list[Job] = []
    for name in names:
        backbone = kit.backbone(name)
        # A training that nobody can score afterwards is not begun.
        kit.encoders(backbone)
        contenders = [Contender.on(backbone, one) for one in entries if one.recipe.backbone == name]
        for one in combinations:
            subjects = kit.subjects(one.subjects, backbone)
            if name == names[0]:
                base, *contenders_left = contenders
                kinds = _references(plan, kit, one, entries[0])
                jobs += [reference_job(kind, plan, one, subjects, base) for kind in kinds]
            else:
                contenders_left = contenders
            for contender in contenders_left:
                jobs += make_jobs(plan, one, subjects, contender)
    return jobs


def _references(plan: BenchPlan, kit: Kit, combination: Combination, base: Entry) -> list[Kind]:
    """What is to stand beside the entries: the base model, and true footage where there is some."""
    kinds: list[Kind] = ["base"] if plan.base else []
    if plan.ceiling and kit.footage(combination.name, (0, 0), base.recipe) is not None:
        kinds.append("true")
    return kinds


def _left(
    store: Store, kit: Kit, jobs: Sequence[Job], *, retry_failed: bool
) -> tuple[list[Job], list[Outcome]]:
    """The jobs to do, and how those ended that failed earlier and are not tried again."""
    todo: list[Job] = []
    lost: list[Outcome] = []
    for job in jobs:
        folder = store.folder(job)
        if folder.is_done(job, kit.scoring(job.recipe.backbone)):
            continue
        failure = folder.failure
        if failure is None or retry_failed:
            todo.append(job)
        else:
            lost.append(Outcome(job, "failed", 0.0, failure.message))
    return todo, lost


def _follow(executor: Executor[Job], jobs: Sequence[Job], say: Say) -> list[Outcome]:
    """Have the jobs done and shown; those that failed."""
    return failed(follow(executor, jobs, say))


def _summary(jobs: int, lost: Sequence[Outcome], rows: Path, say: Say) -> Summary:
    for outcome in lost:
        say(f"Failed: {outcome.job.title}: {outcome.message}")
    if lost:
        say(
            f"{len(lost)} of {jobs} jobs failed; what they said is in failed.json of each job's "
            "folder. --retry-failed tries them again."
        )
    say(f"Wrote '{rows}'. Next:")
    say(f"  {command('bench', 'table', rows.parent)}")
    return Summary(jobs - len(lost), tuple(lost), rows)
