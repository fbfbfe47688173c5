"""Scoring a job's saved videos: at any time anew, without training or drawing.

What a score is, is decided in `customvideo.evaluation`.
"""

from __future__ import annotations

from customvideo.benchmark.grid import Job
from customvideo.benchmark.kit import Kit
from customvideo.benchmark.store import JobFolder, Scored
from customvideo.evaluation.evaluate import evaluate
from customvideo.subjects.prompt import LearnedWord, Prompt
from customvideo.video import Video

__all__ = ["score", "words_of"]


def score(job: Job, folder: JobFolder, kit: Kit) -> Scored:
    """The scores of all the job's videos, read from its folder.

    Raises:
        UserError: a video is missing or damaged, or something about it cannot be scored.
    """
    backbone = kit.backbone(job.recipe.backbone)
    judges = kit.judges(backbone)
    subjects = kit.subjects(job.subjects, backbone)
    videos = [Video.load(folder.video(sample)) for sample in job.samples]
    words = words_of(job)
    prompts = [Prompt(job.prompts[prompt], words) for prompt, _ in job.samples]
    found = evaluate(videos, prompts, subjects, judges.encoders, segmenter=judges.crops)
    small = judges.small & set(job.subjects)
    return Scored(kit.scoring(job.recipe.backbone), job.samples, found.rows, small)


def words_of(job: Job) -> tuple[LearnedWord, ...]:
    """The words the job's prompts mention, as texts; how they are learned is the method's part."""
    return tuple(LearnedWord(name, category) for name, category, _ in job.made.subjects)
