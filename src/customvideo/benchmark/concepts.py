"""Reading `concepts_list`, the JSON by which Custom Diffusion and diffusers describe subjects.

    [{"instance_prompt": "photo of a <new1> cat", "class_prompt": "cat",
      "instance_data_dir": "./data/cat", "class_data_dir": "./real_reg/samples_cat"}, ...]

Only words, categories and photos are taken: `class_data_dir` is where those trainers keep prior
samples, which are drawn from the base model here, and prompts to evaluate with are not in the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from customvideo.benchmark.manifest import SubjectEntry, read_json_text
from customvideo.errors import BenchmarkError
from customvideo.files import expanded
from customvideo.records import parse_json

__all__ = ["read_concepts"]

_LONGEST = 1_000
_NEEDED = ("instance_prompt", "class_prompt", "instance_data_dir")
_TEMPLATE = re.compile(r"^(?:an? )?(?:photo|picture|image|photograph) of ", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the) ", re.IGNORECASE)


def read_concepts(path: Path) -> list[SubjectEntry]:
    """The subjects of a `concepts_list`.

    A subject is called like its modifier token (`<new1>`), else like the word that stands before
    its class in `instance_prompt` (`sks`); its category is `class_prompt` without `photo of a`.
    A relative `instance_data_dir` is looked for beside the file, then, as diffusers has it, in
    the current folder.

    Raises:
        BenchmarkError: the file cannot be read, or describes no concepts.
    """
    try:
        values = parse_json(read_json_text(path))
    except ValueError as error:
        raise BenchmarkError(f"'{path}' is not JSON ({error}); correct it.") from error
    if not isinstance(values, list) or not values:
        raise BenchmarkError(f"'{path}' lists no concept; see 'concepts_list' of diffusers.")
    return [_subject(concept, path) for concept in values]


def _subject(concept: Any, path: Path) -> SubjectEntry:
    if not isinstance(concept, dict):
        raise BenchmarkError(
            f"'{path}' should be one list of concepts, each with {', '.join(_NEEDED)}; put "
            "several lists into several files."
        )
    for key in _NEEDED:
        if not isinstance(concept.get(key), str) or not concept[key].strip():
            raise BenchmarkError(f"A concept in '{path}' lacks '{key}'; add it.")
        if len(concept[key]) > _LONGEST:
            raise BenchmarkError(f"'{key}' of a concept in '{path}' is too long; shorten it.")
    category = _ARTICLE.sub("", _TEMPLATE.sub("", concept["class_prompt"].strip()))
    name = _name(concept["instance_prompt"], category)
    if name is None:
        raise BenchmarkError(
            f"The prompt '{concept['instance_prompt']}' in '{path}' names no word; write "
            f"'photo of a <new1> {category}'."
        )
    folder = _folder(concept["instance_data_dir"], path.parent)
    return SubjectEntry(name=name, category=category, folder=folder)


def _name(prompt: str, category: str) -> str | None:
    token = re.search(r"<([^<>\s]+)>", prompt)
    if token is None:
        noun = r"\s+".join(re.escape(word) for word in category.split())
        token = re.search(rf"([\w-]+)\s+{noun}\b", prompt, re.IGNORECASE)
    if token is None or token[1].lower() in ("a", "an", "the", "of"):
        return None
    return token[1].lower()


def _folder(text: str, beside: Path) -> str:
    place = expanded(text.strip())
    near, here = beside / place, Path.cwd() / place
    return str(near if near.exists() or not here.exists() else here)
