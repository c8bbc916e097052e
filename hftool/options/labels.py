"""Options of `sentiment`: its labels."""

import functools
from dataclasses import dataclass
from typing import Annotated, Literal

from hftool.errors import UsageError, exclude
from hftool.options.shared import option

LongTexts = Literal["truncate", "chunk"]
LabelScoring = Literal["mean", "sum"]
_labels = functools.partial(option, panel="Labels")
_evaluation = functools.partial(option, panel="Evaluation")


@dataclass(frozen=True)
class LabelOptions:
    """The labels that texts can get, and the way they are scored.

    Raises:
        UsageError: two options that exclude each other.
    """

    labels: Annotated[
        str | None,
        _labels("--labels", metavar="A,B,C", help="Your own labels to choose from.", common=True),
    ] = None
    prompt_template: Annotated[
        str | None,
        _labels(
            "--prompt-template",
            "--hypothesis-template",
            metavar="TEXT",
            help="Prompt used with --labels; {text} and {labels} are filled in. For an NLI model,"
            " the hypothesis, with {label}.",
        ),
    ] = None
    label_scoring: Annotated[
        LabelScoring,
        _labels(
            "--label-scoring",
            help="With --labels and a language model: the mean of the log-probabilities of a"
            " label's tokens, or their sum.",
        ),
    ] = "mean"
    long: Annotated[
        LongTexts,
        _labels(
            "--long",
            help="Texts over the model's limit: truncate them, or score them in overlapping"
            " windows.",
        ),
    ] = "truncate"
    pair_column: Annotated[
        str | None,
        _labels(
            "--pair-column",
            metavar="NAME",
            help="Column with a second text, for models of pairs (NLI, paraphrases).",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        _labels(
            "--batch-size",
            metavar="N",
            min=1,
            show_default="by length",
            help="Number of texts scored together.",
        ),
    ] = None

    def __post_init__(self) -> None:
        paired = self.pair_column is not None
        exclude({"--pair-column": paired, "--labels": self.labels is not None})
        exclude({"--pair-column": paired, "--long chunk": self.long == "chunk"})


@dataclass(frozen=True)
class LabelReportOptions:
    """What to write of the labels, and what to require of them."""

    threshold: Annotated[
        float | None,
        option(
            "--threshold",
            metavar="P",
            min=0,
            max=1,
            help="Below this score, the label is UNCERTAIN.",
        ),
    ] = None
    all_scores: Annotated[
        bool, option("--all-scores", help="Add a column with the score of each label.")
    ] = False
    summary: Annotated[
        bool, option("--summary", help="Write only counts, mean scores and histograms by label.")
    ] = False
    check: Annotated[
        str | None,
        option("--check", metavar="LABEL", help="Exit with status 3 unless every text gets LABEL."),
    ] = None


@dataclass(frozen=True)
class EvaluationOptions:
    """The comparison with right labels.

    Raises:
        UsageError: an option that needs the right labels, without them.
    """

    gold: Annotated[
        str | None,
        _evaluation(
            "--gold",
            metavar="COLUMN",
            help="Compare with the right labels in this column: accuracy, F1 and more.",
            common=True,
        ),
    ] = None
    mistakes: Annotated[
        int, _evaluation("--mistakes", metavar="N", min=0, help="Also show the N worst mistakes.")
    ] = 0
    min_accuracy: Annotated[
        float | None,
        _evaluation(
            "--min-accuracy",
            metavar="P",
            min=0,
            max=1,
            help="Exit with status 3 if the accuracy is lower.",
        ),
    ] = None

    def __post_init__(self) -> None:
        for name, given in (
            ("--mistakes", self.mistakes > 0),
            ("--min-accuracy", self.min_accuracy is not None),
        ):
            if given and self.gold is None:
                raise UsageError(f"{name} needs --gold", "as in --gold label")
