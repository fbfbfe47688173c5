"""Jobs: their order and wishes, and work that survives the end of everything around it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from customvideo.errors import ConfigError, StorageError, SubjectError, UserError
from customvideo.workspace import runner
from customvideo.workspace.jobs import JobFolder
from customvideo.workspace.places import read_json
from customvideo.workspace.processes import held, own_identity, started_at
from customvideo.workspace.queue import runner_lock
from customvideo.workspace.records import TrainRequest
from customvideo.workspace.requests import recipe_for
from customvideo.workspace.telling import tell
from tests.workspace.conftest import Studio

PATIENCE = 400.0
CHILDREN = pytest.mark.skipif(os.name == "nt", reason="ends processes by signals")


def until(what: Callable[[], object], told: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, told()
        time.sleep(0.02)


# Who waits for whom: no process is started.


@pytest.mark.usefixtures("without_runner")
def test_the_queue_keeps_its_order(studio: Studio) -> None:
    queue = studio.workspace.queue
    first, second, third = (
        studio.submit("generate", prompts=[f"video {number}"]) for number in range(3)
    )
    assert [first.position, second.position, third.position] == [1, 2, 3]
    order = [job.id for job in queue.reorder([third.id, "nonsense"]).entries]
    assert order == [third.id, first.id, second.id]

    assert queue.pause(first.id).state == "paused"
    assert queue.get(second.id).position == 2
    assert queue.resume(first.id).position == 3
    assert queue.stop(first.id).state == "stopped", "it had not begun"
    with pytest.raises(StorageError, match="stopped already"):
        queue.stop(first.id)
    with pytest.raises(StorageError, match="cannot be paused"):
        queue.pause(first.id)
    with pytest.raises(StorageError, match="stop it before"):
        queue.delete(second.id)
    thrown = queue.delete(first.id)
    assert first.id not in [job.id for job in queue.list().entries]
    studio.workspace.trash.restore(thrown.id)
    assert queue.get(first.id).can_resume


@pytest.mark.usefixtures("without_runner")
def test_wishes_of_a_running_job_are_told(studio: Studio) -> None:
    queue = studio.workspace.queue
    job = studio.submit("generate", prompts=["a cat"])
    folder = JobFolder(studio.workspace.root, job.id)
    folder.change(state="running", started="now")
    assert "pauses as soon as" in queue.pause(job.id).message
    assert "stops as soon as" in queue.stop(job.id).message
    assert not folder.state()["force"]
    queue.stop(job.id)
    assert folder.state()["force"], "a second time means at once"


@pytest.mark.usefixtures("without_runner")
def test_what_cannot_work_is_refused_at_once(studio: Studio) -> None:
    other = studio.workspace.projects.create("empty")
    for kind, settings, told in (
        ("train", studio.training(options={"stepz": 1}), "did you mean 'steps'"),
        ("train", studio.training(steps=0), "'steps'"),
        ("train", studio.training(subjects=["tim"]), "did you mean 'tom'"),
        ("train", studio.training() | {"backbone": "/etc"}, "no model '/etc'"),
        ("train", studio.training() | {"recipe": "../../x"}, "no recipe"),
        ("train", studio.training(options={"start_from": "/etc/passwd"}), "start_from"),
        ("train", studio.training(options={"tracker": "wandb"}), "cannot be chosen here"),
        ("train", studio.training(options={"scene": ["../x"]}), "looks like a path"),
        ("generate", {"prompts": []}, "'prompts'"),
        ("generate", {"prompts": ["a"], "adapters": ["../../x"]}, "no id"),
        ("generate", {"prompts": ["a"], "adapters": ["none-00000000"]}, "no adapter"),
        ("generate", {"prompts": ["a"], "seeds": [-1]}, "'seeds.0'"),
        ("generate", {"prompts": ["a"] * 32, "seeds": list(range(9))}, "too many"),
        ("export", {"adapter": "none-00000000", "target": "comfyui"}, "no adapter"),
        ("dance", {}, "no kind of job"),
    ):
        with pytest.raises(UserError, match=told):
            studio.submit(kind, **settings)
    with pytest.raises(SubjectError, match="no subject yet"):
        studio.workspace.queue.submit("train", other.id, {})
    assert studio.workspace.queue.list().entries == ()


def test_settings_of_a_training_reach_its_recipe() -> None:
    recipe = recipe_for(TrainRequest(steps=10, seed=3, options={"batch_size": 1, "nu": 0.25}))
    assert (recipe.steps, recipe.seed, recipe.batch_size, recipe.preview_every) == (10, 3, 1, 2)
    assert recipe.method_options["nu"] == 0.25
    with pytest.raises(ConfigError, match="did you mean"):
        recipe_for(TrainRequest(options={"batch_sise": 1}))


@pytest.mark.usefixtures("without_runner")
def test_a_photo_without_mask_is_no_surprise_after_an_hour(studio: Studio) -> None:
    folder = studio.workspace.shelf(studio.project.id).get("rex").folder
    (folder / "masks" / "1.png").unlink()
    with pytest.raises(SubjectError, match=r"'1\.png' of <rex> has no mask"):
        studio.submit("train", **studio.training())


@pytest.mark.usefixtures("without_runner")
def test_jobs_are_told_and_asked_without_a_page(studio: Studio, tmp_path: Path) -> None:
    root, quiet = studio.workspace.root, dict.fromkeys(("pause", "resume", "stop", "log"))
    assert list(tell(root, **quiet)) == ["There is no job."]
    job = studio.submit("generate", prompts=["a cat"])
    assert list(tell(root, **quiet)) == [f"{job.id}  queued  Draw a video: a cat"]
    (line,) = tell(root, **quiet | {"stop": job.id})
    assert line.startswith(f"{job.id}  stopped") and line.endswith("Stopped before it began.")
    assert list(tell(root, **quiet | {"log": job.id})) == [""]
    with pytest.raises(StorageError, match="no studio's folder"):
        list(tell(tmp_path / "nowhere", **quiet))


# How a job's end is understood.


@pytest.mark.usefixtures("without_runner")
def test_work_ended_from_outside_is_tried_again_and_then_given_up(studio: Studio) -> None:
    job = studio.submit("train", **studio.training())
    folder = JobFolder(studio.workspace.root, job.id)
    for _ in range(2):
        folder.change(state="running")
        runner._settle(folder, -9, ended_here=False)
        assert studio.workspace.queue.get(job.id).state == "queued"
        assert "by signal 9" in studio.workspace.queue.get(job.id).message
    folder.change(state="running")
    runner._settle(folder, -9, ended_here=False)
    failed = studio.workspace.queue.get(job.id)
    assert failed.state == "failed" and "3 times" in failed.message and failed.can_resume


@pytest.mark.usefixtures("without_runner")
def test_a_failure_is_told_in_its_own_sentence(studio: Studio) -> None:
    job = studio.submit("train", **studio.training())
    folder = JobFolder(studio.workspace.root, job.id)
    folder.change(state="running")
    folder.finish("failed", "The disk is full; free some space.", ("careful",))
    runner._settle(folder, 0, ended_here=False)
    failed = studio.workspace.queue.get(job.id)
    assert (failed.state, failed.message) == ("failed", "The disk is full; free some space.")
    assert failed.warnings == ("careful",)


@pytest.mark.usefixtures("without_runner")
def test_a_damaged_job_hides_no_other(studio: Studio) -> None:
    whole, broken = (studio.submit("generate", prompts=["a cat"]) for _ in range(2))
    (studio.workspace.root / "jobs" / broken.id / "state.json").write_text("{")
    listing = studio.workspace.queue.list()
    assert [job.id for job in listing.entries] == [whole.id] and len(listing.broken) == 1


def test_a_second_runner_is_refused(studio: Studio) -> None:
    with FileLock(runner_lock(studio.workspace.root)):
        assert runner.run(studio.workspace.root) == 2
    assert not held(runner_lock(studio.workspace.root))


@pytest.mark.usefixtures("without_runner")
def test_whoever_looks_for_a_runner_is_not_taken_for_one(studio: Studio) -> None:
    lock = FileLock(runner_lock(studio.workspace.root), thread_local=False)
    lock.acquire()
    # As long as a look may take.
    threading.Timer(0.2, lock.release).start()
    assert runner.run(studio.workspace.root) == 0


def test_a_number_of_another_process_is_not_believed(tmp_path: Path) -> None:
    own_identity(tmp_path / "me.json")
    assert started_at(tmp_path / "me.json") is not None
    text = (tmp_path / "me.json").read_text()
    started = read_json(tmp_path / "me.json")["started"]
    (tmp_path / "me.json").write_text(text.replace(str(started), str(started - 60)))
    assert started_at(tmp_path / "me.json") is None


# The whole life of a training, with real processes.


@CHILDREN
def test_a_training_that_everything_happens_to_learns_the_same(
    make_studio: Callable[[Path], Studio], tmp_path: Path
) -> None:
    """Its runner is killed, it is paused, it is killed itself: bit for bit the same adapter."""
    steps = 30
    calm, stormy = make_studio(tmp_path / "calm"), make_studio(tmp_path / "stormy")
    queue, root = stormy.workspace.queue, stormy.workspace.root
    job = stormy.submit("train", **stormy.training(steps))
    folder = JobFolder(root, job.id)

    def told() -> str:
        return f"{queue.get(job.id)} {queue.progress(job.id).step} {queue.log(job.id)}"

    until(lambda: queue.progress(job.id).step >= 2, told)
    process = started_at(root / "jobs" / ".runner.json")
    assert process is not None and held(runner_lock(root))
    assert runner.run(root) == 2, "two would do the work twice"
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: not held(runner_lock(root)), told)
    assert held(folder.lock), "the work goes on without its runner"
    assert queue.ensure_runner() and queue.get(job.id).state == "running"

    queue.pause(job.id)
    until(lambda: queue.get(job.id).state == "paused", told)
    paused_at = queue.progress(job.id).step
    assert 2 <= paused_at < steps and not held(folder.lock)
    until(lambda: not held(runner_lock(root)), told)

    queue.resume(job.id)
    until(lambda: queue.progress(job.id).step > paused_at + 2, told)
    work = started_at(folder.process)
    assert work is not None
    os.kill(work.pid, signal.SIGKILL)
    until(lambda: queue.get(job.id).state in ("done", "failed"), told)
    assert queue.get(job.id).state == "done", told()

    reference = calm.submit_here("train", **calm.training(steps))
    learned = stormy.workspace.library.adapter(job.adapter)
    undisturbed = calm.workspace.library.adapter(reference.adapter)
    assert learned.file.read_bytes() == undisturbed.file.read_bytes()
    assert (learned.steps, learned.origin, learned.project) == (steps, "trained", job.project)
    assert len(queue.progress(job.id).losses["loss"]) == steps
