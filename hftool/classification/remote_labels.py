"""Score candidate labels by the probability that a model behind an endpoint gives them."""

import math
from collections.abc import Sequence

from hftool.classification.classify import EncodedText
from hftool.classification.label_probability import filled_template
from hftool.endpoint.scores import logprobs_of_texts
from hftool.endpoint.server import Endpoint
from hftool.options.labels import LabelScoring


class RemoteScorer:
    """Scores each label by its probability as the continuation of a prompt, as `PromptScorer` does.

    Raises:
        UsageError: the template lacks {text}.
    """

    truncated_texts = 0
    is_multi_label = False
    pair_column: str | None = None

    def __init__(
        self,
        endpoint: Endpoint,
        labels: Sequence[str],
        template: str,
        scoring: LabelScoring,
        concurrency: int,
    ) -> None:
        self.labels = tuple(labels)
        self.window = concurrency
        self._endpoint, self._scoring = endpoint, scoring
        self._template = filled_template(template, labels)
        self._space = "" if self._template[-1].isspace() else " "

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Return the prompt of each text."""
        return [EncodedText([self._template.replace("{text}", text)]) for text in texts]

    def scores(self, encoded: Sequence[EncodedText]) -> list[list[float]]:
        """Return the labels' probabilities for each prompt; they sum to 1.

        Raises:
            HftoolError: the server gives no log-probabilities, or fails.
        """
        prompts = [prompt for text in encoded for prompt in text.sequences]
        pairs = [(f"{self._space}{label}", prompt) for prompt in prompts for label in self.labels]
        found = iter(logprobs_of_texts(self._endpoint, pairs, self.window))
        return [self._shares([next(found) for _ in self.labels]) for _ in prompts]

    def _shares(self, of_labels: Sequence[Sequence[float]]) -> list[float]:
        totals = [
            math.fsum(values) / (len(values) if self._scoring == "mean" else 1)
            for values in of_labels
        ]
        weights = [math.exp(total - max(totals)) for total in totals]
        return [weight / math.fsum(weights) for weight in weights]
