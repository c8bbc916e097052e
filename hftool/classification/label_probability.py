"""Score candidate labels by the probability that a causal language model gives each of them after
a prompt."""

import logging
from collections.abc import Sequence
from functools import cache

import torch

from hftool.classification.classify import EncodedText
from hftool.classification.text_pieces import CHARACTERS_PER_TOKEN
from hftool.errors import UsageError
from hftool.generation.prefix_cache import CachedModel
from hftool.models.language_model import LanguageModel
from hftool.options.labels import LabelScoring

log = logging.getLogger("hftool")

CHARACTERS_TO_JUDGE = 1000  # of a text, to find whether the model knows its words
PROMPT = "Text: {text}\nSentiment:"


def filled_template(template: str, labels: Sequence[str]) -> str:
    """Return a template with the labels filled in.

    Raises:
        UsageError: it lacks {text}.
    """
    if "{text}" not in template:
        raise UsageError(
            "--prompt-template lacks {text}", "as in --prompt-template 'Text: {text} Mood:'"
        )
    return template.replace("{labels}", ", ".join(labels)).rstrip(" ")


class PromptScorer:
    """Scores each label by its probability as the continuation of a prompt, normalized over the
    labels. With `scoring="mean"` the probability is the geometric mean of those of the label's
    tokens, so that a label of several tokens is not improbable for its length; with "sum" it is
    their product.

    The model computes the prompt once for all labels, as well as the tokens that labels begin
    with in common, and reuses what the prompt shares with the previous one.

    Raises:
        UsageError: the template lacks {text}.
    """

    window = 8  # texts are scored one by one

    is_multi_label = False
    pair_column: str | None = None

    def __init__(
        self,
        language_model: LanguageModel,
        labels: Sequence[str],
        template: str,
        scoring: LabelScoring = "mean",
    ) -> None:
        self.labels = tuple(labels)
        self._scoring = scoring
        self.truncated_texts = 0
        self._tokenizer = language_model.tokenizer
        self._model = CachedModel(language_model, rewinds=True)
        # A label's first token includes the space before it: " good" and "good" are different
        # tokens, so the prompt must not end with that space.
        self._template = filled_template(template, labels)
        self._space = "" if self._template[-1].isspace() else " "
        self._continuations = [self._continuation(label) for label in labels]
        for continuation in self._continuations:
            language_model.require_known(continuation)
        self._log_prefixes()
        length = language_model.context_length
        self._limit = None if length is None else length - max(map(len, self._continuations))

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Return the ids of each text's prompt; a text that does not fit the context is truncated.

        Raises:
            UsageError: the template alone does not fit the context.
        """
        return [EncodedText(self._prompt(text), self._is_unknown(text)) for text in texts]

    def _is_unknown(self, text: str) -> bool:
        start = text[:CHARACTERS_TO_JUDGE]
        return self._tokenizer.is_mostly_unknown(self._tokenizer.encode(start, special=False))

    def scores(self, encoded: Sequence[EncodedText]) -> list[list[float]]:
        """Return the labels' probabilities for each prompt; they sum to 1."""
        logprobs = [self._logprobs(list(text.sequences)) for text in encoded]
        shares: list[list[float]] = torch.softmax(torch.tensor(logprobs).double(), dim=-1).tolist()
        return shares

    def _prompt(self, text: str) -> list[int]:
        limit = self._limit
        ids = self._ids(text if limit is None else text[: limit * CHARACTERS_PER_TOKEN])
        if limit is None or len(ids) <= limit:
            return ids
        self.truncated_texts += 1
        start = text[: limit * CHARACTERS_PER_TOKEN]
        offsets = self._tokenizer.encode(start, special=False).offsets
        while offsets and len(ids) > limit:  # a shorter text may be split into other tokens
            del offsets[limit - len(ids) :]
            text = text[: offsets[-1][1]] if offsets else ""
            ids = self._ids(text)
        if len(ids) > limit:
            raise UsageError(f"--prompt-template is longer than the context of {limit} tokens")
        return ids

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(self._template.replace("{text}", text), special=True).ids

    def _continuation(self, label: str) -> tuple[int, ...]:
        """Return the tokens that a label adds to a prompt."""
        prompt = self._template.replace("{text}", "")
        before = self._tokenizer.encode(prompt, special=False).ids
        whole = self._tokenizer.encode(f"{prompt}{self._space}{label}", special=False).ids
        return tuple(whole[len(before) :])

    def _logprobs(self, ids: list[int]) -> list[float]:
        """Return the log-probability of each label after a prompt: the sum or the mean over its
        tokens."""

        @cache
        def logprobs_after(tokens: tuple[int, ...]) -> torch.Tensor:  # [vocabulary]
            logits = self._model.next_logits([*ids, *tokens])
            return torch.log_softmax(logits.double(), dim=-1)

        return [
            sum(float(logprobs_after(label[:i])[token_id]) for i, token_id in enumerate(label))
            / (len(label) if self._scoring == "mean" else 1)
            for label in self._continuations
        ]

    def _log_prefixes(self) -> None:
        """Log labels that begin with another one: of such, the longer is never more probable."""
        pairs = [
            (long, short)
            for long, of_long in zip(self.labels, self._continuations, strict=True)
            for short, of_short in zip(self.labels, self._continuations, strict=True)
            if long != short and of_long[: len(of_short)] == of_short
        ]
        if not pairs:
            return
        listed = ", ".join(f"'{long}' with '{short}'" for long, short in pairs[:3])
        if self._scoring == "sum":
            effect = "the longer one can never win (try --label-scoring mean)"
        else:
            effect = "their scores depend on each other"
        log.warning("labels begin with others: %s; %s", listed, effect)
