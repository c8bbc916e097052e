"""Guesses at how a text goes on, for the model to check in one pass."""

from collections.abc import Sequence
from typing import Any

import torch

from hftool.errors import HftoolError
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import CandidateGenerator
from hftool.models.load import LanguageModel

ASSISTANT_TOKENS = 5  # guessed by an assistant model at a time
LOOKUP_NGRAM = 2  # tokens that must occur before (transformers' max_matching_ngram_size)


def prompt_lookup_generator(tokens: int) -> CandidateGenerator:
    """Guesses that the text goes on as it did after the same words before, by `tokens` at a time
    (transformers, `PromptLookupCandidateGenerator`)."""
    from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

    def draft(ids: Sequence[int]) -> list[int]:
        generator = PromptLookupCandidateGenerator(
            num_output_tokens=tokens,
            max_matching_ngram_size=LOOKUP_NGRAM,
            max_length=len(ids) + tokens + 2,
        )
        prompt: Any = torch.tensor([list(ids)])
        found, _ = generator.get_candidates(prompt)
        return [int(i) for i in found[0, len(ids) :]]

    return draft


def assistant_generator(language_model: LanguageModel, helper: LanguageModel) -> CandidateGenerator:
    """Guesses what a smaller model would choose.

    Raises:
        HftoolError: the two have not the same vocabulary.
    """
    ours, theirs = (m.tokenizer.backend.get_vocab() for m in (language_model, helper))
    if ours != theirs:
        raise HftoolError(
            f"{helper.name} has another vocabulary than {language_model.name}",
            "an assistant model is a smaller model of the same family",
        )
    decoder = CachedModel(helper, rewinds=True)

    def draft(ids: Sequence[int]) -> list[int]:
        guessed: list[int] = []
        while len(guessed) < ASSISTANT_TOKENS and decoder.fitting([*ids, *guessed], [0]):
            guessed.append(int(decoder.next_logits([*ids, *guessed]).argmax()))
        return guessed

    return draft
