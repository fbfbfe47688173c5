"""What jobs leave in the library: adapters and videos that can be found, redone and undone."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from customvideo.errors import AdapterError, ConfigError, PromptError, StorageError
from customvideo.files import write_text
from customvideo.video import Video
from customvideo.workspace import AdapterEntry, Workspace, check_prompt, estimate
from customvideo.workspace.jobs import JobFolder
from customvideo.workspace.places import read_json
from customvideo.workspace.prompts import complete
from customvideo.workspace.queue import Queue
from customvideo.workspace.work import Work, _do
from tests.workspace.conftest import Studio

QUICK_VIDEO = {"steps": 2, "frames": 2, "height": 64, "width": 96}


@pytest.fixture(scope="module")
def learned(
    make_studio: Callable[[Path], Studio], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Studio, AdapterEntry]:
    """A workspace with an adapter that learned two steps; tests add to it and take nothing."""
    studio = make_studio(tmp_path_factory.mktemp("library") / "w")
    job = studio.submit_here("train", **studio.training(preview_every=1))
    return studio, studio.workspace.library.adapter(job.adapter)


def test_a_training_is_watched_and_found_in_the_library(
    learned: tuple[Studio, AdapterEntry],
) -> None:
    studio, adapter = learned
    (job,) = [job for job in studio.workspace.queue.list().entries if job.kind == "train"]
    progress = studio.workspace.queue.progress(job.id)
    assert (progress.phase, progress.step, progress.of) == ("training", 2, 2)
    assert [step for step, _ in progress.losses["loss"]] == [1, 2]
    assert {"loss", "reconstruction", "attention"} <= set(progress.losses)
    assert progress.preview is not None and Video.load(progress.preview).frames.any()
    assert set(progress.attention) == set(progress.previews) == {1, 2}
    assert adapter.words == (("tom", "cat"), ("rex", "dog"))
    assert (adapter.name, adapter.steps, adapter.method) == ("Tom and Rex", 2, "customvideo")
    assert adapter.report is not None and adapter.bytes > 0


def test_videos_are_drawn_once_and_redone_from_their_settings(
    learned: tuple[Studio, AdapterEntry],
) -> None:
    studio, adapter = learned
    library = studio.workspace.library
    job = studio.submit_here(
        "generate",
        prompts=["a <tom> cat and a <rex> dog"],
        adapters=[adapter.id, ""],
        seeds=[1],
        attention=True,
        **QUICK_VIDEO,
    )
    customized, base = (library.video(id) for id in job.videos)
    assert (customized.label, base.label) == ("Tom and Rex", "base model")
    assert set(customized.attention) == {"<tom>", "<rex>"} and base.attention == {}
    assert all(file.is_file() for file in customized.attention.values())
    assert Video.load(customized.mp4).frames.shape[0] == 2
    assert library.adapter(adapter.id).videos == (customized.id,)
    assert [one.id for one in library.videos(adapter="").entries] == [base.id]
    progress = studio.workspace.queue.progress(job.id)
    assert (progress.step, progress.of) == (4, 4)

    again = studio.submit_here("generate", **customized.settings)
    redone = library.video(again.videos[0])
    assert redone.mp4.read_bytes() == customized.mp4.read_bytes()

    written = redone.mp4.stat().st_mtime_ns
    shutil.rmtree(library.video(again.videos[0]).mp4.parent)
    with pytest.raises(StorageError):
        library.video(again.videos[0])
    _do(Work(studio.workspace.root, job.id))
    assert library.video(job.videos[0]).created == customized.created, "what is there stays"
    assert written


def test_an_asked_stop_is_heard_and_what_was_learned_is_kept(
    learned: tuple[Studio, AdapterEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, _ = learned
    monkeypatch.setattr(Queue, "ensure_runner", lambda _self: False)
    job = studio.submit("train", **studio.training(steps=50), name="half")
    folder = JobFolder(studio.workspace.root, job.id)
    work = Work(studio.workspace.root, job.id)
    real = work.add_losses

    def stop_at_three(step: int, loss: float, parts: dict[str, float]) -> None:
        real(step, loss, parts)
        if step == 3:
            folder.want("stop")

    monkeypatch.setattr(work, "add_losses", stop_at_three)
    _do(work)
    result = folder.result()
    assert result is not None and result["outcome"] == "stopped"
    assert "after step 3" in result["message"]
    half = studio.workspace.library.adapter(job.adapter)
    assert (half.name, half.origin, half.steps) == ("half", "stopped", 3)


def test_merging_exporting_and_scoring(learned: tuple[Studio, AdapterEntry]) -> None:
    studio, adapter = learned
    other = studio.submit_here("train", **studio.training(subjects=["tom"], name="alone"))
    with pytest.raises(AdapterError, match="Several of these know <tom>"):
        studio.submit("merge", adapters=[adapter.id, other.adapter])
    merged = studio.submit_here(
        "merge", adapters=[adapter.id, other.adapter], rename=["tom=tim"], how="sum", name="both"
    )
    entry = studio.workspace.library.adapter(merged.adapter)
    assert [name for name, _ in entry.words] == ["tom", "rex", "tim"]
    assert (entry.name, entry.origin) == ("both", "merged")

    exported = studio.submit_here(
        "export", adapter=adapter.id, target="textual-inversion", words_only=True
    )
    (archive,) = studio.workspace.queue.results(exported.id)
    assert "README.md" in zipfile.ZipFile(archive).namelist()


def test_a_job_that_fails_says_why(
    learned: tuple[Studio, AdapterEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, adapter = learned
    monkeypatch.setattr(Queue, "ensure_runner", lambda _self: False)
    job = studio.submit("generate", prompts=["a <tom> cat"], adapters=[adapter.id], height=7)
    _do(Work(studio.workspace.root, job.id))
    result = JobFolder(studio.workspace.root, job.id).result()
    assert (
        result is not None
        and result["outcome"] == "failed"
        and "multiples of 8" in result["message"]
    )


def test_adapters_are_renamed_deleted_restored_archived_and_imported(
    learned: tuple[Studio, AdapterEntry],
) -> None:
    studio, adapter = learned
    library = studio.workspace.library
    copied = library.import_adapter(adapter.file.read_bytes(), "Copy <b>", studio.project.id)
    assert (copied.origin, copied.words) == ("imported", adapter.words)
    assert library.rename_adapter(copied.id, "Renamed").name == "Renamed"
    with zipfile.ZipFile(library.archive(adapter.id)) as archive:
        assert {"adapter.safetensors", "recipe.toml"} <= set(archive.namelist())
    # It is written once, and again when something in it has changed.
    first = library.archive(adapter.id).stat().st_ino
    assert library.archive(adapter.id).stat().st_ino == first
    scores = adapter.folder / "scores.json"
    write_text(scores, '{"a": 1}')
    library.archive(adapter.id)
    write_text(scores, '{"a": 2}')
    with zipfile.ZipFile(library.archive(adapter.id)) as archive:
        assert archive.read("scores.json") == b'{"a": 2}' and archive.testzip() is None
    scores.unlink()
    with zipfile.ZipFile(library.archive(adapter.id)) as archive:
        assert "scores.json" not in archive.namelist()
    before = len(library.adapters().entries)
    thrown = library.delete_adapter(copied.id)
    assert len(library.adapters().entries) == before - 1
    with pytest.raises(StorageError, match="no adapter"):
        library.adapter(copied.id)
    studio.workspace.trash.restore(thrown.id)
    assert library.adapter(copied.id).name == "Renamed"
    for data in (b"", b"\x08\0\0\0\0\0\0\0{}      ", b"junk" * 100):
        with pytest.raises(AdapterError, match="evil"):
            library.import_adapter(data, "evil")
    assert len(library.adapters().entries) == before
    assert library.disk_use()["adapters"] > 0 and library.disk_use()["free"] > 0


def test_no_header_from_elsewhere_chooses_a_folder(
    learned: tuple[Studio, AdapterEntry], tmp_path: Path
) -> None:
    studio, adapter = learned
    with safe_open(adapter.file, "pt") as file:
        given = file.metadata()
    written = {key: value.replace("tiny-zeroscope", "/etc/") for key, value in given.items()}
    assert written != given
    save_file(load_file(adapter.file), tmp_path / "evil.safetensors", written)
    library = studio.workspace.library
    evil = library.import_adapter((tmp_path / "evil.safetensors").read_bytes(), "evil")
    with pytest.raises(ConfigError, match="no model '/etc/' here"):
        studio.submit_here("generate", prompts=["a cat"], adapters=[evil.id], **QUICK_VIDEO)


def test_an_adapter_in_use_is_not_deleted(
    learned: tuple[Studio, AdapterEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, adapter = learned
    monkeypatch.setattr(Queue, "ensure_runner", lambda _self: False)
    job = studio.submit("generate", prompts=["a cat"], adapters=[adapter.id])
    with pytest.raises(StorageError, match="needed by the job"):
        studio.workspace.library.delete_adapter(adapter.id)
    studio.workspace.queue.stop(job.id)


def test_words_of_a_prompt(learned: tuple[Studio, AdapterEntry]) -> None:
    _, adapter = learned
    found = check_prompt(adapter, "a <Tom> cat, <tim> and rex on the beach <img onerror=x>")
    assert found.known == ("<tom>",)
    assert found.unknown == (("<tim>", "<tom>"),)
    assert found.bare == ("rex",)
    assert found.plain.startswith("a cat, <tim>")
    assert check_prompt(None, "<tom>").unknown == (("<tom>", ""),)
    assert complete(adapter, "a <to") == ("<tom> cat",) and complete(adapter, "a <tom>") == ()


def test_an_estimate_before_training(learned: tuple[Studio, AdapterEntry]) -> None:
    studio, _ = learned
    found = estimate(studio.workspace, studio.project.id, studio.training(steps=100))
    assert found.seconds is not None and found.seconds > 0 and found.device == "cpu"
    assert found.memory > 0 and found.available and any("Memory" in line for line in found.lines)
    with pytest.raises(PromptError):
        studio.workspace.shelf(studio.project.id).get("../tom")


def test_a_second_look_reads_only_what_has_changed(
    learned: tuple[Studio, AdapterEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages ask every second, of workspaces with hundreds of videos and jobs."""
    workspace = learned[0].workspace
    library, queue = workspace.library, workspace.queue
    copied = library.import_adapter(learned[1].file.read_bytes(), "Another", "")
    looked = library.adapters(), library.videos(), queue.list()
    read: list[str] = []

    def reading(path: Path) -> dict[str, Any]:
        read.append(path.parent.name)
        return read_json(path)

    for module in ("library", "jobs"):
        monkeypatch.setattr(f"customvideo.workspace.{module}.read_json", reading)
    assert (library.adapters(), library.videos(), queue.list()) == looked
    assert library.adapter(copied.id) == copied
    # Only the places of those that wait depend on others.
    assert set(read) <= {job.id for job in looked[2].entries if job.state == "queued"}
    # Another process changes one of them.
    Workspace(workspace.root).library.rename_adapter(copied.id, "Elsewhere")
    read.clear()
    assert "Elsewhere" in [one.name for one in library.adapters().entries]
    assert read == [copied.id]
    job = next(job for job in queue.list().entries if not job.active)
    JobFolder(workspace.root, job.id).change(message="said")
    read.clear()
    assert queue.list() != looked[2] and queue.get(job.id).message == "said"
    assert job.id in read
    # What is damaged is told each time, and a good copy is seen.
    whole = copied.file.read_bytes()
    copied.file.write_bytes(whole[:100])
    assert len(library.adapters().broken) == len(library.adapters().broken) == 1
    copied.file.write_bytes(whole)
    assert library.adapters().broken == ()
    library.delete_adapter(copied.id)
    assert copied.id not in [one.id for one in library.adapters().entries]
