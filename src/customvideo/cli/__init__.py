"""The command line: verbs and flags, turned into calls of `runs`, `demo` and `toybox.commands`.

No logic lives here: a verb fills in a plan and hands it on. What is decided here is only how a
program behaves towards the person who called it: an error they can mend is one sentence on
standard error and exit code 2, an interruption says how to go on and exits with 130, and nothing
heavy is imported before a verb is known.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from customvideo import __version__
from customvideo.cli.adapters import export, import_file
from customvideo.cli.batch import batch
from customvideo.cli.bench import bench
from customvideo.cli.doctor import doctor
from customvideo.cli.flags import MENDABLE, Device, Sets, say
from customvideo.cli.jobs import jobs
from customvideo.cli.merging import add, merge, remove
from customvideo.cli.preparing import prepare
from customvideo.cli.study import study
from customvideo.cli.web import web
from customvideo.errors import UserError
from customvideo.files import is_explained, storage_error
from customvideo.notes import heard
from customvideo.training.interrupt import Interrupted

__all__ = ["app", "main"]

_INTERRUPTED = 130
_STOPPED = "Stopped; what was finished is kept. Run it again for the rest, which begins anew."


class _Verbs(TyperGroup):
    """Runs a verb, and says what went wrong in the way described above."""

    def invoke(self, ctx: Any) -> Any:
        with heard(_Notes()), _stoppable():
            try:
                return super().invoke(ctx)
            except UserError as error:
                _complain(error, _INTERRUPTED if isinstance(error, Interrupted) else MENDABLE)
            except OSError as error:
                # Such as a path that is too long for any file system, wherever it came from.
                if error.filename is None or not is_explained(error):
                    raise
                _complain(storage_error(error, Path(str(error.filename)), "use"), MENDABLE)
            except KeyboardInterrupt:
                _complain(_STOPPED, _INTERRUPTED)


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Photos of several subjects in, a video of them together out.",
)
toybox = typer.Typer(no_args_is_help=True, help="The miniature world everything can be tried in.")
app.add_typer(toybox, name="toybox")
app.add_typer(bench, name="bench")
app.add_typer(study, name="study")

Photos = Annotated[
    list[str],
    typer.Option(
        "--subject",
        metavar="NAME[:CATEGORY]=FOLDER",
        help="A subject's word, what it is, and the folder with its photos; repeat for each. "
        "NAME+NAME=FOLDER: photos of several together.",
    ),
]
Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")]
Adapter = Annotated[Path, typer.Option(metavar="FILE", help="What training wrote.")]
Backbone = Annotated[
    str | None,
    typer.Option(help="Text-to-video model: a known name, a diffusers folder, or a hub id."),
]
Seed = Annotated[int, typer.Option(min=0, help="Fixes every random draw.")]
Seeds = Annotated[
    list[int], typer.Option("--seed", min=0, help="Same seed, same video; repeat for several.")
]
Segmenter = Annotated[
    str | None,
    typer.Option(help="Who makes missing masks: grabcut, sam, sam2, sam3, …"),
]
Count = Annotated[int, typer.Option(min=1, max=64, help="How many scenes.")]


@app.callback(invoke_without_command=True)
def _start(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(f"customvideo {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


app.command(short_help="Look at photos and masks before training.")(prepare)


@app.command(short_help="Learn subjects from their photos.")
def train(  # noqa: PLR0913 - a verb's parameters are its flags
    out: Folder,
    subject: Photos = [],  # noqa: B006
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", "--from", metavar="FILE|DIR", help="A complete run as TOML, or its folder."
        ),
    ] = None,
    sets: Sets = [],  # noqa: B006
    backbone: Backbone = None,
    method: Annotated[str | None, typer.Option(help="How to learn.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes every random draw.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in DIR.")] = False,
    segmenter: Segmenter = None,
    device: Device = "auto",
    fit: Annotated[
        str | None,
        typer.Option(metavar="GB", help="Turn settings until it fits a card: auto, 8, 12, … 80."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it will be and need.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Train in so many processes, a GPU each.")
    ] = 1,
) -> None:
    """Learn subjects from their photos.

    Writes DIR/adapter.safetensors, checkpoints/, recipe.toml, masks/ and report.html.
    """
    from customvideo.runs import TrainPlan, preflight
    from customvideo.runs import train as run
    from customvideo.runs.together import start_together
    from customvideo.training.ranks import asked_processes

    choices = {"backbone": backbone, "method": method, "seed": seed, "segmenter": segmenter}
    card = int(fit) if fit is not None and fit.isdecimal() else fit
    plan = TrainPlan(out, subject, recipe, sets, {**choices, "fit": card}, resume, device)
    if processes > 1 and asked_processes() == 1 and not (dry_run or as_json):
        raise typer.Exit(start_together(processes, sys.argv[1:]))
    if dry_run or as_json:
        preflight(plan, say, as_json=as_json)
    else:
        run(plan, say=say)


@app.command(short_help="Make videos from prompts.")
def generate(  # noqa: PLR0913 - a verb's parameters are its flags
    prompt: Annotated[list[str], typer.Argument(metavar="PROMPT…", help="What to show.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .mp4, .gif or .png (sheet).")],
    adapter: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="What training wrote; repeat; none: base model."),
    ] = [],  # noqa: B006
    seed: Seeds = [0],  # noqa: B006
    negative: Annotated[str | None, typer.Option(help="What should not be seen.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How closely to follow the prompt.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="How much of the adapter.")] = None,
    regions: Annotated[
        str | None,
        typer.Option(help="Whose words keep to their places: off, alike, all; else the run's."),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="In half of the time, and a little less alike: fewer steps."),
    ] = False,
    frames: Annotated[int | None, typer.Option(help="Length of the video.")] = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Height and width.")] = None,
    backbone: Backbone = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Also draw where each word looks.")
    ] = False,
    upscale: Annotated[
        str | None,
        typer.Option(metavar="MODEL[=STRENGTH]", help="Who redraws the video larger; 0.7 of it."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Make videos from prompts; several prompts or seeds give numbered files."""
    from customvideo.runs import GeneratePlan
    from customvideo.runs import generate as run

    given = {"negative": negative, "num_steps": steps, "guidance": guidance, "frames": frames}
    given |= {"strength": strength, "regions": regions}
    sampling = {key: value for key, value in given.items() if value is not None}
    looks = (size, backbone, attention, device, upscale)
    first, others = (adapter[0] if adapter else None), adapter[1:]
    run(GeneratePlan(prompt, out, first, seed, sampling, *looks, others, fast), say)


@app.command(short_help="Score an adapter's videos.")
def evaluate(  # noqa: PLR0913 - a verb's parameters are its flags
    adapter: Adapter,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the scores go, as JSON.")],
    subject: Photos,
    prompt: Annotated[list[str], typer.Option(help="What to make; repeat for several.")] = [],  # noqa: B006
    seed: Seeds = [0],  # noqa: B006
    backbone: Backbone = None,
    clip: Annotated[str | None, typer.Option(help="Who compares with texts: NAME[=MODEL].")] = None,
    dino: Annotated[str | None, typer.Option(help="Who compares looks: NAME[=MODEL].")] = None,
    finder: Annotated[
        str | None, typer.Option(help="Who finds the subjects in the videos: NAME[=MODEL].")
    ] = None,
    segmenter: Segmenter = None,
    device: Device = "auto",
    recommend: Annotated[
        bool, typer.Option("--recommend", help="Of a run's folder: which checkpoint, how strong.")
    ] = False,
    strength: Annotated[
        list[float], typer.Option(min=0, help="With --recommend: what to try; repeat.")
    ] = [],  # noqa: B006
) -> None:
    """Make videos and score them: fit to the text and to the photos, steadiness over time."""
    from customvideo.runs import EvaluatePlan
    from customvideo.runs import evaluate as run

    encoders, masks = (clip, dino), segmenter or "grabcut"
    plan = EvaluatePlan(
        adapter,
        out,
        subject,
        prompt,
        seed,
        backbone,
        encoders,
        masks,
        device,
        finder,
        strength,
        recommend,
    )
    run(plan, say)


@app.command(short_help="Rank where a model looks, before training.")
def sites(  # noqa: PLR0913 - a verb's parameters are its flags
    subject: Photos = [],  # noqa: B006
    backbone: Backbone = None,
    scenes: Annotated[int, typer.Option(min=1, help="Composed scenes to look at.")] = 8,
    top: Annotated[int | None, typer.Option(min=1, help="How many sites to suggest.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The ranking as JSON.")] = None,
    seed: Seed = 0,
    segmenter: Segmenter = None,
    device: Device = "auto",
) -> None:
    """Rank a model's attention sites by how well they see the subjects' categories."""
    from customvideo.runs import SitesPlan
    from customvideo.runs import rank as run

    masks, name = segmenter or "grabcut", backbone or "toybox"
    run(SitesPlan(subject, name, masks, scenes, top, seed, out, device), say)


app.command("export", short_help="Write an adapter for another program.")(export)
app.command("import", short_help="Read another trainer's file.")(import_file)


@app.command(short_help="See it all work, offline, in minutes.")
def demo(out: Folder = Path("runs/demo"), seed: Seed = 0, device: Device = "auto") -> None:
    """Two subjects from photos into one video, in the toybox, twice: open DIR/report.html."""
    from customvideo.demo import run

    run(out, seed=seed, device=device, say=say)


@toybox.command(short_help="Make the toybox's weights anew.")
def pretrain(
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where finished stages are kept.")],
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the weights go in the end.")
    ] = None,
    edition: Annotated[
        str, typer.Option(metavar="NAME", help="unet3d, which ships, or wan, Wan's class.")
    ] = "unet3d",
    sets: Sets = [],  # noqa: B006
    device: Device = "auto",
) -> None:
    """Make the toybox's weights anew; a stopped run goes on with the same command."""
    from customvideo.toybox.commands import pretrain as run

    run(work, export, sets, device, edition=edition, say=say)


@toybox.command(short_help="Write photo folders of the named subjects.")
def studio(
    out: Folder,
    names: Annotated[list[str], typer.Argument(metavar="[NAME…]", help="Which; default all.")] = [],  # noqa: B006
) -> None:
    """Write photo folders of CustomStudio's named subjects."""
    from customvideo.toybox.commands import studio as run

    run(out, names, say=say)


@toybox.command(short_help="Draw random scenes of the world.")
def sheet(
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .png, .mp4 or .gif.")],
    count: Count = 12,
    seed: Seed = 0,
) -> None:
    """Draw random scenes of the world: a .png shows stills, an .mp4 or .gif moves."""
    from customvideo.toybox.commands import sheet as run

    run(out, count, seed, say=say)


app.command(short_help="Customize many times.")(batch)
app.command(short_help="Say what is there and what is not.")(doctor)
app.command(short_help="Make one adapter of several.")(merge)
app.command(short_help="Learn more subjects on top of an adapter.")(add)
app.command(short_help="Take a subject out of an adapter.")(remove)
app.command(short_help="What a studio's jobs are doing.")(jobs)
app.command(short_help="Open the studio in the browser.")(web)


def main() -> None:
    """The `customvideo` command."""
    app(prog_name="customvideo")


def _complain(message: object, code: int) -> None:
    typer.echo(f"customvideo: {message}", err=True)
    raise typer.Exit(code)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM stop a verb by an exception, as Ctrl-C does: nothing half-written stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    found = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, found)


class _Notes:
    """Prints what the package notes as one plain line, the same line once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, text: str, _level: int) -> None:
        if text not in self._said:
            self._said.add(text)
            typer.echo(f"Note: {text}", err=True)
