"""Captions written by an image-text model: what a photo shows besides its subject.

A caption that described the subject would teach those words what the learned word is to learn. So
the model is asked not to, and what it says of the subject's look all the same is taken out again.
Stock transformers classes by name; captions that people wrote are `customvideo.subjects.captions`.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from customvideo.errors import SubjectError
from customvideo.quiet import without_bars, without_warnings
from customvideo.subjects.prompt import article

__all__ = ["Captioner", "instruction", "without_looks"]

_LONGEST = 60
"""Tokens of an answer."""
_SIDE = 768
"""Pixels: more of a photo costs tokens and tells nothing new."""
_PART = (
    "fur|coat|eyes?|ears?|tail|whiskers?|paws?|legs?|nose|snout|beak|feathers?|wings?|mane|stripes?|"
    "spots?|markings?|patterns?|hair|face|skin|beard|logo|texture|handles?|lid|surface|body|head"
)
_COLOUR = (
    "black|white|gr[ea]y|brown|red|orange|yellow|green|blue|purple|violet|pink|golden|gold|silver|"
    "beige|cream|tan|ginger|tabby|calico|dark|light|bright|striped|spotted|fluffy|furry|shiny"
)
_FIRST = "an?|the|one|two|three|four|some|this|that"
_OWNER = r"it|its|he|his|she|her|their|they"


class Captioner:
    """Describes photos with the model called `model`, a hub id or a folder in transformers' format.

    BLIP-like models are shown the photo alone; those with a chat template are asked as
    `instruction` says. `device` is "auto" or a torch device.
    """

    def __init__(self, model: str, device: str = "auto") -> None:
        self.model = model
        self.device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        )

    def __call__(self, image: NDArray[np.uint8], category: str) -> str:
        """What `image` (height, width, 3) shows, with nothing of how its `category` looks."""
        return without_looks(self.describe(image, category), category)

    def describe(self, image: NDArray[np.uint8], category: str) -> str:
        """What the model says, as it says it; greedy, so the same for the same photo."""
        processor, network = self._loaded
        picture = Image.fromarray(image)
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        inputs = _inputs(processor, picture, category).to(self.device)
        with torch.inference_mode():
            ids = network.generate(**inputs, max_new_tokens=_LONGEST, do_sample=False, num_beams=1)
        # Models that go on writing repeat what they were asked; those that only read do not.
        asked = inputs.get("input_ids")
        if asked is not None and ids.shape[1] >= asked.shape[1]:
            head = ids[:, : asked.shape[1]]
            ids = ids[:, asked.shape[1] :] if torch.equal(head, asked) else ids
        texts = processor.batch_decode(ids, skip_special_tokens=True)
        return " ".join(str(texts[0]).split())

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            with without_bars(), without_warnings("transformers", "huggingface_hub"):
                processor = AutoProcessor.from_pretrained(self.model)
                network = AutoModelForImageTextToText.from_pretrained(
                    self.model, use_safetensors=True, dtype=torch.float32
                )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise SubjectError(
                f"The captioner '{self.model}' cannot be loaded; give a folder or hub id of an "
                "image-text-to-text model, or write captions beside the photos yourself."
            ) from error
        return processor, network.eval().to(self.device)


def instruction(category: str) -> str:
    """What a model that can be asked is asked."""
    thing = f"{article(category)} {category}"
    return (
        f"This is a photo of {thing}. Write one short sentence that starts with '{thing}' and says "
        "what it does, where it is, what is around it, and the light. Do not describe how the "
        f"{category} itself looks: no colour, breed, material, pattern, age or clothing of it."
    )


def without_looks(text: str, category: str) -> str:
    """`text` without what it says of the look of its `category`.

    Adjectives before the noun go, additions such as "with green eyes" go, and so does every
    sentence about its parts. What is left may be "", but is never about the look.
    """
    noun = r"\s+".join(re.escape(part) for part in category.split())
    # From the nearest article on: "a woman holds a black and white cat" keeps its woman.
    before = rf"\b({_FIRST})\s+(?:(?!(?:{_FIRST})\b)[\w'-]+[\s,]+){{1,5}}?({noun}s?)\b"
    said = re.sub(before, _plain, " ".join(text.split()), flags=re.IGNORECASE)
    added = rf",?\s+(?:with|that has|who has|and has|having)\s+[\w\s'-]*?\b(?:{_PART})\b"
    colours = rf"(?:{_COLOUR})(?:(?:,\s*|\s+and\s+|\s+)(?:{_COLOUR}))*"
    coloured = rf"(?:\s+(?:that|which|who)\s+(?:is|are)\s+{colours}\b|,\s*{colours}\s*(?=[,.]|$))"
    for told in (added, coloured):
        said = re.sub(rf"(\b{noun}s?\b){told}", r"\1", said, flags=re.IGNORECASE)
    sentences = re.split(r"(?<=[.!?;])\s+", said)
    kept = " ".join(one for one in sentences if not _about_looks(one, noun))
    return re.sub(r"\s+([,.;!?])", r"\1", kept).strip(" ,;")


def _about_looks(sentence: str, noun: str) -> bool:
    """Whether a sentence is about what its subject looks like."""
    about = rf"^\W*(?:the\s+|this\s+|an?\s+)?(?:[\w-]+\s+){{0,3}}?(?:{noun}'?s?|{_OWNER})\b"
    if not re.search(about, sentence, re.IGNORECASE):
        return False
    parts = rf"\b(?:has|have|is|are|looks?)\b.*\b(?:{_PART}|{_COLOUR})\b"
    own = rf"^\W*(?:{_OWNER}|(?:the\s+)?{noun}'s)\s+(?:[\w-]+\s+){{0,2}}?(?:{_PART}|colou?rs?)\b"
    doing = r"\b(?:is|are)\s+\w+ing\b"
    if re.search(own, sentence, re.IGNORECASE):
        return True
    found = re.search(parts, sentence, re.IGNORECASE)
    return found is not None and re.search(doing, sentence, re.IGNORECASE) is None


def _plain(found: re.Match[str]) -> str:
    """The article and the noun alone."""
    before, noun = found.groups()
    if before.lower() in ("a", "an"):
        right = article(noun)
        before = right.capitalize() if before[0].isupper() else right
    return f"{before} {noun}"


def _inputs(processor: Any, picture: Image.Image, category: str) -> Any:
    if getattr(processor, "chat_template", None) is None:
        return processor(images=picture, return_tensors="pt")
    asked = [{"type": "image"}, {"type": "text", "text": instruction(category)}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": asked}], add_generation_prompt=True, tokenize=False
    )
    return processor(images=picture, text=text, return_tensors="pt")
