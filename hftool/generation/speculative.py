"""Guess the next tokens, so that the model can check several of them in one pass."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from hftool.errors import HftoolError
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import CandidateGenerator
from hftool.models.language_model import LanguageModel

log = logging.getLogger("hftool")

ASSISTANT_TOKENS = 5  # that an assistant model guesses at a time
LOOKUP_NGRAM = 2  # tokens that must match earlier text (transformers' max_matching_ngram_size)


def prompt_lookup_generator(tokens: int) -> CandidateGenerator:
    """Return a generator that repeats what followed the same words earlier in the text, `tokens`
    at a time (transformers, `PromptLookupCandidateGenerator`)."""
    from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

    def guess(ids: Sequence[int]) -> list[int]:
        generator = PromptLookupCandidateGenerator(
            num_output_tokens=tokens,
            max_matching_ngram_size=LOOKUP_NGRAM,
            max_length=len(ids) + tokens + 2,
        )
        prompt: Any = torch.tensor([list(ids)])
        candidates, _ = generator.get_candidates(prompt)
        return [int(i) for i in candidates[0, len(ids) :]]

    return guess


def assistant_generator(
    language_model: LanguageModel, assistant: LanguageModel
) -> CandidateGenerator:
    """Return a generator of the tokens that a smaller model would choose.

    It guesses nothing where the smaller model cannot read the text, or fails.

    Raises:
        HftoolError: the two models have different vocabularies.
    """
    ours, theirs = (m.tokenizer.backend.get_vocab() for m in (language_model, assistant))
    if ours != theirs:
        raise HftoolError(
            f"{assistant.name} and {language_model.name} have different vocabularies",
            "choose a smaller model of the same family as the assistant",
        )
    cached_model = CachedModel(assistant, rewinds=True)
    # Models of one family often have different numbers of rows, since they are padded.
    rows = language_model.embedding_rows
    failed = False

    def guess(ids: Sequence[int]) -> list[int]:
        nonlocal failed
        guesses: list[int] = []
        if failed or max(ids) >= assistant.embedding_rows:
            return guesses
        try:
            while len(guesses) < ASSISTANT_TOKENS and cached_model.fitting([*ids, *guesses], [0]):
                guesses.append(int(cached_model.next_logits([*ids, *guesses])[:rows].argmax()))
        except HftoolError as error:
            failed = True
            log.warning("the assistant model %s fails, and is not used: %s", assistant.name, error)
        return guesses

    return guess
