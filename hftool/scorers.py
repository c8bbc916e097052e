"""Scores of texts by sequence-classification models."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from itertools import islice
from typing import Any, TypeVar

import torch

from hftool.classification import Scorer
from hftool.errors import HftoolError, UsageError
from hftool.models.load import (
    CLASSIFIER,
    Classifier,
    load_classifier,
    load_language_model,
    model_errors,
)
from hftool.models.locate import architectures_of, locate
from hftool.options import (
    DEFAULT_MODEL,
    ClassifierOptions,
    LabelOptions,
    LoadOptions,
    LongTexts,
)
from hftool.own_labels import PROMPT, PromptScorer

WINDOW = 1024  # texts sorted by length together
# Padded tokens of a batch. On a CPU what a layer computes of so many stays in the cache of a core.
BATCH_TOKENS = 1024
BATCH_TOKENS_ON_GPU = 16_384
PIECE = 100_000  # characters of a text tokenized as one
AT_ONCE = 1_000_000  # characters tokenized at once: tokens take a hundred times the memory of text
HYPOTHESIS = "This text is {label}."
OVERLAP = 0.25  # of a window's tokens are in the one before as well
RESCALED = ("dynamic", "longrope")  # positions that a forward pass rescales by its own length
# Model types that see padding in spite of its mask (by convolutions, pooling, the last place):
# a batch of theirs is of one length.
SEE_PADDING = ("canine", "convbert", "fnet", "funnel", "mobilebert", "nystromformer", "xlnet")

T = TypeVar("T")

Tokens = tuple[list[int], list[int]]  # ids, and which of two texts each is of (0 or 1)


def load_scorer(load: ClassifierOptions, options: LabelOptions) -> Scorer:
    """A classifier with its own labels; for labels of the user's a language model, or a classifier
    of natural-language inference.

    Raises:
        UsageError: labels, or options, that don't go together.
        HftoolError: as `load_classifier` and `load_language_model`.
    """
    template, batch_size = options.prompt_template, options.batch_size
    if options.labels is None:
        if template is not None:
            raise UsageError("--prompt-template: it is for labels of your own, see --labels")
        return ClassifierScorer(load_classifier(load), batch_size=batch_size, long=options.long)
    labels = _own_labels(options.labels)
    if options.long == "chunk":
        raise UsageError("--long chunk: with --labels a text that is too long is cut")
    name = load.model or DEFAULT_MODEL
    architectures = architectures_of(locate(name, "model", load))
    if any(architecture.endswith(CLASSIFIER) for architecture in architectures):
        classifier = load_classifier(replace(load, model=name))
        return EntailmentScorer(classifier, labels, template or HYPOTHESIS, batch_size=batch_size)
    language_model = load_language_model(LoadOptions(**{**asdict(load), "model": name}))
    return PromptScorer(language_model, labels, template or PROMPT)


def _own_labels(named: str) -> list[str]:
    labels = [label.strip() for label in named.split(",")]
    if not all(labels):
        raise UsageError(f"--labels: an empty label in '{named}'")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UsageError(f"--labels: '{twice}' is named twice")
    if len(labels) == 1:
        raise UsageError("--labels: there must be two at least, separated by commas")
    return labels


class ClassifierScorer:
    """A classifier's own labels.

    A text that is too long is cut, or with `chunk` seen in windows that overlap: its scores are
    then their mean, weighted by their numbers of tokens.
    """

    def __init__(
        self, classifier: Classifier, *, batch_size: int | None = None, long: LongTexts = "truncate"
    ) -> None:
        self.labels = classifier.labels
        self.window = WINDOW
        self.cut = 0
        self._classifier = classifier
        self._batch_size = batch_size
        self._long = long

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """The ids of each text's windows, special tokens included."""
        classifier = self._classifier
        limit = classifier.max_length
        most = 1 if self._long == "truncate" and limit is not None else None
        pieces = [list(islice(_pieces(text, _piece_length(limit)), most)) for text in texts]
        every = [piece for some in pieces for piece in some]
        windows = (
            ids
            for some in _at_once(every)
            for ids in classifier.tokenizer.encode_windows(some, limit, OVERLAP)
        )
        found = [[ids for _ in some for ids in next(windows)] for some in pieces]
        if most is not None:
            self.cut += sum(
                len(ids) > 1 or len(some[0]) < len(text)
                for text, some, ids in zip(texts, pieces, found, strict=True)
            )
        return [ids[:most] for ids in found]

    def scores(self, encoded: Sequence[list[list[int]]]) -> list[list[float]]:
        """The scores of each text by label."""
        every: list[Tokens] = [(ids, []) for windows in encoded for ids in windows]
        rows = iter(self._activated(batched_logits(self._classifier, every, self._batch_size)))
        return [_mean([(len(ids), next(rows)) for ids in windows]) for windows in encoded]

    def _activated(self, logits: torch.Tensor) -> list[list[float]]:
        """The function transformers' pipeline applies to such a model's logits."""
        function = self._classifier.activation
        if function == "softmax":
            logits = torch.softmax(logits, dim=-1)
        elif function == "sigmoid":
            logits = torch.sigmoid(logits)
        found: list[list[float]] = logits.tolist()
        return found


class EntailmentScorer:
    """Labels of one's own by a natural-language-inference model: how far a text entails the
    hypothesis that a label makes of the template, as a share among the labels (Yin et al. 2019;
    transformers' zero-shot pipeline).

    Raises:
        UsageError: the template has no {label}.
        HftoolError: the classifier has no label `entailment`.
    """

    def __init__(
        self,
        classifier: Classifier,
        labels: Sequence[str],
        template: str,
        *,
        batch_size: int | None = None,
    ) -> None:
        if "{label}" not in template:
            raise UsageError("--hypothesis-template: there is no {label} in it")
        self.labels = tuple(labels)
        self.window = max(1, WINDOW // len(labels))
        self.cut = 0
        self._classifier = classifier
        self._batch_size = batch_size
        self._hypotheses = [template.replace("{label}", label) for label in labels]
        names = [label.lower() for label in classifier.labels]
        found = [i for i, name in enumerate(names) if name.startswith("entail")]
        if not found:
            raise HftoolError(
                f"{classifier.name} has labels of its own: {', '.join(classifier.labels)}",
                "--labels takes a language model, or a classifier with the label entailment",
            )
        self._entailment = found[0]

    def encode(self, texts: Sequence[str]) -> list[list[Tokens]]:
        """Each text with each hypothesis; the text is cut where both are too long."""
        tokenizer, limit = self._classifier.tokenizer, self._classifier.max_length
        starts = [next(_pieces(text, _piece_length(limit))) for text in texts]
        pairs = [(start, hypothesis) for start in starts for hypothesis in self._hypotheses]
        every = iter(tokenizer.encode_pairs(pairs, limit))
        found = [[next(every) for _ in self._hypotheses] for _ in texts]
        self.cut += sum(
            any(pair.overflowing for pair in pairs) or len(start) < len(text)
            for text, start, pairs in zip(texts, starts, found, strict=True)
        )
        return [[(pair.ids, pair.type_ids) for pair in pairs] for pairs in found]

    def scores(self, encoded: Sequence[list[Tokens]]) -> list[list[float]]:
        """The share of each label by text."""
        every = [tokens for pairs in encoded for tokens in pairs]
        logits = batched_logits(self._classifier, every, self._batch_size)[:, self._entailment]
        shares = torch.softmax(logits.view(len(encoded), len(self.labels)), dim=-1)
        found: list[list[float]] = shares.tolist()
        return found


def batched_logits(
    classifier: Classifier, every: Sequence[Tokens], batch_size: int | None
) -> torch.Tensor:
    """The logits of sequences, computed by like length: float32 [sequences, labels]."""
    model = classifier.model
    if model.config.pad_token_id is None:
        batch_size = 1  # what pools the last token finds it by the padding
    most = BATCH_TOKENS if model.device.type == "cpu" else BATCH_TOKENS_ON_GPU
    padded = getattr(model.config, "model_type", None) not in SEE_PADDING
    batches = list(_batches([len(ids) for ids, _ in every], batch_size, most, padded=padded))
    logits = torch.empty(len(every), len(classifier.labels))

    def compute(places: list[int]) -> None:
        logits[places] = _logits(classifier, [every[i] for i in places])

    _each(compute, batches[::-1], _workers(model, len(batches)))  # the longest texts first
    return logits


def _workers(model: Any, batches: int) -> int:
    """How many batches to compute at once: on a CPU each core computes one of its own, where there
    are enough, which is faster than all cores at the same."""
    cores = torch.get_num_threads()
    rescaled = any(getattr(m, "rope_type", "") in RESCALED for m in model.modules())
    return 1 if model.device.type != "cpu" or batches < 2 * cores or rescaled else cores


def _each(compute: Callable[[T], None], items: Sequence[T], workers: int) -> None:
    if workers == 1:
        for item in items:
            compute(item)
        return
    torch.set_num_threads(1)  # of each worker
    pool = ThreadPoolExecutor(workers)
    try:
        for _ in pool.map(compute, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(workers)


def _batches(
    lengths: Sequence[int], batch_size: int | None, most: int, *, padded: bool
) -> Iterator[list[int]]:
    """Places of sequences of like length, without padding of one length: so many a batch, else by
    their padded tokens."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch_size:
            full = len(batch) == batch_size
        else:
            full = (len(batch) + 1) * lengths[place] > most
        if batch and (full or not (padded or lengths[place] == lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@torch.inference_mode()
def _logits(classifier: Classifier, batch: Sequence[Tokens]) -> torch.Tensor:
    """The logits of sequences padded to the longest: float32 [sequences, labels]."""
    config, device = classifier.model.config, classifier.model.device
    width = max(len(ids) for ids, _ in batch)
    pad = config.pad_token_id or 0
    inputs = {
        "input_ids": [ids + [pad] * (width - len(ids)) for ids, _ in batch],
        "attention_mask": [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch],
    }
    if any(types for _, types in batch) and (getattr(config, "type_vocab_size", 0) or 0) > 1:
        inputs["token_type_ids"] = [types + [0] * (width - len(types)) for _, types in batch]
    tensors = {name: torch.tensor(rows, device=device) for name, rows in inputs.items()}
    with model_errors():
        logits: torch.Tensor = classifier.model(**tensors).logits.float().cpu()
    return logits


def _mean(windows: Sequence[tuple[int, list[float]]]) -> list[float]:
    """The mean of several windows' scores by label, weighted by their tokens."""
    if len(windows) == 1:
        return windows[0][1]
    total = sum(tokens for tokens, _ in windows)
    columns = zip(*(scores for _, scores in windows), strict=True)
    weights = [tokens / total for tokens, _ in windows]
    return [sum(w * p for w, p in zip(weights, column, strict=True)) for column in columns]


def _at_once(texts: Iterable[str]) -> Iterator[list[str]]:
    """The same texts, so many together as are tokenized at once."""
    some: list[str] = []
    characters = 0
    for text in texts:
        some.append(text)
        characters += len(text)
        if characters >= AT_ONCE:
            yield some
            some, characters = [], 0
    if some:
        yield some


def _piece_length(limit: int | None) -> int:
    return max(PIECE, 32 * (limit or 0))


def _pieces(text: str, length: int) -> Iterator[str]:
    """A text in pieces that end, where they can, behind a space."""
    start = 0
    while len(text) - start > length:
        end = text.rfind(" ", start, start + length) + 1 or start + length
        yield text[start:end]
        start = end
    yield text[start:]
