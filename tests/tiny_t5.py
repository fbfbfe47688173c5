"""A tokenizer for tiny T5-like text encoders: a token a word, and one for all that are unknown."""

from __future__ import annotations

from typing import Any

from tests.tiny import WORDS

__all__ = ["tiny_t5_tokenizer"]


def tiny_t5_tokenizer() -> Any:
    """With padding 0, an end 1 that closes every text, unknown 2, then `tests.tiny.WORDS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    whole = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    end = ("</s>", vocabulary["</s>"])
    whole.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[end])
    return PreTrainedTokenizerFast(
        tokenizer_object=whole, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
