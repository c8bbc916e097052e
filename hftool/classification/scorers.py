"""Choose what scores the labels: a classifier, an NLI model or a language model."""

from hftool.classification.classify import Scorer
from hftool.classification.label_probability import PROMPT, PromptScorer
from hftool.classification.remote_labels import RemoteScorer
from hftool.classification.sequence_classifier import ClassifierScorer
from hftool.classification.zero_shot import HYPOTHESIS, EntailmentScorer
from hftool.endpoint.client import HttpError
from hftool.endpoint.scores import require_right_logprobs
from hftool.endpoint.server import connect
from hftool.errors import HftoolError, UsageError
from hftool.models.classifier import Classifier
from hftool.models.load import load_classifier, load_classifier_or_language_model
from hftool.models.references import endpoint_address
from hftool.options.endpoint import DEFAULT_CONCURRENCY
from hftool.options.labels import LabelOptions
from hftool.options.model import DEFAULT_CLASSIFIER, DEFAULT_MODEL, ClassifierOptions


def _remote_scorer(
    address: str, load: ClassifierOptions, options: LabelOptions, concurrency: int
) -> Scorer:
    """Return the scorer of a model behind an endpoint."""
    if options.labels is None:
        raise UsageError("an endpoint needs labels", "as in --labels joy,anger,fear")
    for name, given in (("--long", options.long == "chunk"), ("--batch-size", options.batch_size)):
        if given:
            raise UsageError(f"{name} does not work with an endpoint")
    labels, template = _candidate_labels(options.labels), options.prompt_template or PROMPT
    endpoint = connect(address, load, concurrency)
    try:
        require_right_logprobs(endpoint)
    except HttpError:
        raise
    except HftoolError as error:
        hint = "vLLM gives right ones; generate --choice LABEL chooses a label without a score"
        raise HftoolError(error.message, hint) from None
    return RemoteScorer(endpoint, labels, template, options.label_scoring, concurrency)


def load_scorer(
    load: ClassifierOptions, options: LabelOptions, concurrency: int = DEFAULT_CONCURRENCY
) -> Scorer:
    """Load a model and return its scorer.

    A model may be behind an endpoint, which gets `concurrency` requests at the same time. Without
    `--labels` it is a classifier with the labels it was trained on; with them a language
    model, or a classifier for natural-language inference (NLI).

    Raises:
        UsageError: the options contradict each other, or the labels are unusable.
        HftoolError: as `load_classifier` and `load_language_model`.
    """
    if address := endpoint_address(load.model or ""):
        return _remote_scorer(address, load, options, concurrency)
    template, batch_size = options.prompt_template, options.batch_size
    pair = options.pair_column
    if options.labels is None:
        if template is not None:
            raise UsageError("--prompt-template needs --labels", "as in --labels joy,anger,fear")
        classifier = load_classifier(load)
        return ClassifierScorer(
            classifier, batch_size=batch_size, long=options.long, pair_column=pair
        )
    labels = _candidate_labels(options.labels)
    if options.long == "chunk":
        raise UsageError(
            "--long chunk does not work with --labels", "leave it out: long texts are truncated"
        )
    model = load_classifier_or_language_model(load, default=default_model(options))
    if isinstance(model, Classifier):
        return EntailmentScorer(model, labels, template or HYPOTHESIS, batch_size=batch_size)
    return PromptScorer(model, labels, template or PROMPT, options.label_scoring)


def default_model(options: LabelOptions) -> str:
    """Return the name of the model that scores the labels where the user names none."""
    return DEFAULT_CLASSIFIER if options.labels is None else DEFAULT_MODEL


def _candidate_labels(listed: str) -> list[str]:
    """Return the labels of `--labels A,B,C`.

    Raises:
        UsageError: a label is empty or repeated, or it is the only one.
    """
    labels = [label.strip() for label in listed.split(",")]
    if not all(labels):
        raise UsageError(f"--labels: an empty label in '{listed}'")
    if len(set(labels)) < len(labels):
        repeated = next(label for label in labels if labels.count(label) > 1)
        raise UsageError(f"--labels: '{repeated}' is listed twice")
    if len(labels) == 1:
        raise UsageError("--labels needs at least two labels", "separate them by commas")
    return labels
