"""What lies under the studio page: projects, photos, a queue of jobs, a library, as plain Python.

    workspace = Workspace("studio")
    project = workspace.projects.create("Tom and Rex")
    shelf = workspace.shelf(project.id)
    shelf.add("tom", "cat"); shelf.add_photos("tom", [data, …])
    job = workspace.queue.submit("train", project.id, {"steps": 200})
    workspace.queue.progress(job.id).step

Everything is files in one folder (`places`), so nothing is lost when a server ends; long work is
done by processes of its own (`runner`, `work`), pictures from strangers are decoded in one with
limits (`decoding`). No web framework is known here, and importing it loads no torch.
"""

from __future__ import annotations

from customvideo.workspace.estimates import Estimate, estimate
from customvideo.workspace.example import example_project
from customvideo.workspace.prompts import PromptCheck, check_prompt, complete
from customvideo.workspace.records import (
    AdapterEntry,
    Added,
    Discarded,
    EvaluateRequest,
    ExportRequest,
    GenerateRequest,
    Job,
    Listing,
    MergeRequest,
    Photo,
    Progress,
    Project,
    StoredSubject,
    TrainRequest,
    VideoEntry,
)
from customvideo.workspace.workspace import Workspace

__all__ = [
    "AdapterEntry",
    "Added",
    "Discarded",
    "Estimate",
    "EvaluateRequest",
    "ExportRequest",
    "GenerateRequest",
    "Job",
    "Listing",
    "MergeRequest",
    "Photo",
    "Progress",
    "Project",
    "PromptCheck",
    "StoredSubject",
    "TrainRequest",
    "VideoEntry",
    "Workspace",
    "check_prompt",
    "complete",
    "estimate",
    "example_project",
]
