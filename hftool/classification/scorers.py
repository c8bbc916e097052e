"""Choose what scores the labels: a classifier, an NLI model or a language model."""

from dataclasses import asdict, replace

from hftool.classification.classify import Scorer
from hftool.classification.label_probability import PROMPT, PromptScorer
from hftool.classification.sequence_classifier import ClassifierScorer
from hftool.classification.zero_shot import HYPOTHESIS, EntailmentScorer
from hftool.errors import UsageError
from hftool.models.load import load_classifier, load_language_model
from hftool.models.local_files import architectures_of, ensure_local
from hftool.nn.architectures import CLASSIFIER_SUFFIX
from hftool.options.labels import LabelOptions
from hftool.options.model import DEFAULT_MODEL, ClassifierOptions, LoadOptions


def load_scorer(load: ClassifierOptions, options: LabelOptions) -> Scorer:
    """Load a model and return its scorer.

    Without `--labels` that is a classifier with the labels it was trained on; with them a language
    model, or a classifier for natural-language inference (NLI).

    Raises:
        UsageError: the options contradict each other, or the labels are unusable.
        HftoolError: as `load_classifier` and `load_language_model`.
    """
    template, batch_size = options.prompt_template, options.batch_size
    if options.labels is None:
        if template is not None:
            raise UsageError("--prompt-template needs --labels", "as in --labels joy,anger,fear")
        return ClassifierScorer(load_classifier(load), batch_size=batch_size, long=options.long)
    labels = _candidate_labels(options.labels)
    if options.long == "chunk":
        raise UsageError(
            "--long chunk does not work with --labels", "leave it out: long texts are truncated"
        )
    name = load.model or DEFAULT_MODEL
    architectures = architectures_of(ensure_local(name, "model", load))
    if any(architecture.endswith(CLASSIFIER_SUFFIX) for architecture in architectures):
        classifier = load_classifier(replace(load, model=name))
        return EntailmentScorer(classifier, labels, template or HYPOTHESIS, batch_size=batch_size)
    language_model = load_language_model(LoadOptions(**{**asdict(load), "model": name}))
    return PromptScorer(language_model, labels, template or PROMPT)


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
