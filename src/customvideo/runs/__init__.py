"""Whole runs: a plan goes in, a folder or a file of results comes out.

One file for each verb that works on the user's own material: `preparing`, `learning` (train, and
`customize`, the same as one call; `preflight` before it), `making` (generate), `scoring` (evaluate)
and `ranking` (sites); `folder` names the files of a run. The rooms are wired together here. What
happens inside a step, a mask or a video is decided to the left; what flags mean is the command
line's business.
"""

from __future__ import annotations

from customvideo.runs.learning import TrainPlan, customize, train
from customvideo.runs.making import GeneratePlan, generate
from customvideo.runs.preflight import preflight
from customvideo.runs.preparing import PreparePlan, prepare
from customvideo.runs.ranking import SitesPlan, rank
from customvideo.runs.scoring import EvaluatePlan, evaluate

__all__ = [
    "EvaluatePlan",
    "GeneratePlan",
    "PreparePlan",
    "SitesPlan",
    "TrainPlan",
    "customize",
    "evaluate",
    "generate",
    "preflight",
    "prepare",
    "rank",
    "train",
]
