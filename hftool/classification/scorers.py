"""Choose what scores the labels: a classifier, an NLI model or a language model."""

from hftool.classification.classify import Scorer
from hftool.classification.label_probability import PROMPT, PromptScorer
from hftool.classification.sequence_classifier import ClassifierScorer
from hftool.classification.zero_shot import HYPOTHESIS, EntailmentScorer
from hftool.errors import UsageError
from hftool.models.load import Classifier, load_classifier, load_classifier_or_language_model
from hftool.options.labels import LabelOptions
from hftool.options.model import DEFAULT_MODEL, ClassifierOptions


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
    labels = _candidate_labels(options.labels)
    if options.long == "chunk":
        raise UsageError("--long chunk: with --labels a text that is too long is cut")
    model = load_classifier_or_language_model(load, default=DEFAULT_MODEL)
    if isinstance(model, Classifier):
        return EntailmentScorer(model, labels, template or HYPOTHESIS, batch_size=batch_size)
    return PromptScorer(model, labels, template or PROMPT)


def _candidate_labels(named: str) -> list[str]:
    labels = [label.strip() for label in named.split(",")]
    if not all(labels):
        raise UsageError(f"--labels: an empty label in '{named}'")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise UsageError(f"--labels: '{twice}' is named twice")
    if len(labels) == 1:
        raise UsageError("--labels: there must be two at least, separated by commas")
    return labels
