"""Labels of one's own, by the probability a causal language model gives each after a prompt."""

from collections.abc import Sequence
from functools import cache

import torch

from hftool.errors import UsageError
from hftool.generation.prefix_cache import CachedModel
from hftool.models.load import LanguageModel

PROMPT = "Text: {text}\nSentiment:"
CHARACTERS_A_TOKEN = 32  # more than any text has on average: bounds what is tokenized


class PromptScorer:
    """The probability of each label as the continuation of a prompt, as a share among the labels.

    The prompt is computed once for all labels, as is what labels begin with alike; and what it
    shares with the prompt before not again.

    Raises:
        UsageError: the template has no {text}.
    """

    window = 8  # texts are scored one by one

    def __init__(self, language_model: LanguageModel, labels: Sequence[str], template: str) -> None:
        if "{text}" not in template:
            raise UsageError("--prompt-template: there is no {text} in it")
        self.labels = tuple(labels)
        self.cut = 0
        self._tokenizer = language_model.tokenizer
        self._decoder = CachedModel(language_model, rewinds=True)
        # A label's first token has the space before it: " good" is another token than "good".
        self._template = template.replace("{labels}", ", ".join(labels)).rstrip(" ")
        self._space = "" if self._template[-1].isspace() else " "
        self._continuations = [self._continuation(label) for label in labels]
        length = language_model.context_length
        self._limit = None if length is None else length - max(map(len, self._continuations))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text's prompt; the text is cut where it does not fit the context."""
        return [self._prompt(text) for text in texts]

    def scores(self, encoded: Sequence[list[int]]) -> list[list[float]]:
        """The share of each label by text."""
        rows = [self._logprobs(ids) for ids in encoded]
        found: list[list[float]] = torch.softmax(torch.tensor(rows).double(), dim=-1).tolist()
        return found

    def _prompt(self, text: str) -> list[int]:
        limit = self._limit
        ids = self._ids(text if limit is None else text[: limit * CHARACTERS_A_TOKEN])
        if limit is None or len(ids) <= limit:
            return ids
        self.cut += 1
        offsets = self._tokenizer.encode(text[: limit * CHARACTERS_A_TOKEN], special=False).offsets
        while offsets and len(ids) > limit:
            del offsets[limit - len(ids) :]
            text = text[: offsets[-1][1]] if offsets else ""
            ids = self._ids(text)
        if len(ids) > limit:
            raise UsageError(f"--prompt-template: it has more tokens than the context, {limit}")
        return ids

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(self._template.replace("{text}", text), special=True).ids

    def _continuation(self, label: str) -> tuple[int, ...]:
        """The tokens a label adds to a prompt."""
        prompt = self._template.replace("{text}", "")
        before = self._tokenizer.encode(prompt, special=False).ids
        whole = self._tokenizer.encode(f"{prompt}{self._space}{label}", special=False).ids
        return tuple(whole[len(before) :])

    def _logprobs(self, ids: list[int]) -> list[float]:
        """The log-probability of each label behind a prompt: the sum of its tokens'."""

        @cache
        def behind(tokens: tuple[int, ...]) -> torch.Tensor:
            logits = self._decoder.next_logits([*ids, *tokens])
            return torch.log_softmax(logits.double(), dim=-1)

        return [
            sum(float(behind(label[:i])[token_id]) for i, token_id in enumerate(label))
            for label in self._continuations
        ]
