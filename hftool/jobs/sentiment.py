"""`sentiment` on Ray."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields

from hftool.classification.classify import (
    Classification,
    Scorer,
    TextCounts,
    classify,
    log_truncated,
)
from hftool.inputs.records import Shape
from hftool.inputs.tables import TextRow
from hftool.jobs.tables import TableJob
from hftool.options.labels import LabelOptions
from hftool.options.model import ClassifierOptions
from hftool.output.view import View
from hftool.output.views.classification import classifications_view


@dataclass(frozen=True, kw_only=True)
class LabelJob(TableJob):
    """What to label, and how: the options of `sentiment` that a job's workers need."""

    load: ClassifierOptions
    labelling: LabelOptions
    threshold: float | None = None
    all_scores: bool = False

    @property
    def column(self) -> str | None:
        """The column with the second text of each pair."""
        return self.labelling.pair_column

    def load_model(self) -> "_Labeller":
        """Load the model."""
        from hftool.classification.scorers import load_scorer

        return _Labeller(self, load_scorer(self.load, self.labelling))

    def log(self, counts: Counter[str]) -> None:
        """Log what was truncated, and what the model does not know."""
        log_truncated(counts["truncated"])
        TextCounts(**{item.name: counts[item.name] for item in fields(TextCounts)}).log()


@dataclass
class _Labeller:
    job: LabelJob
    scorer: Scorer
    counted: TextCounts = field(default_factory=TextCounts)
    truncated: int = 0  # texts, before the records

    def view(self, shape: Shape) -> View:
        return classifications_view(
            *(shape, self.scorer.labels),
            all_scores=self.job.all_scores,
            multi_label=self.scorer.is_multi_label,
            errors=self.job.on_error == "report",
        )

    def records(self, rows: Iterable[TextRow], start: int) -> Iterator[Classification]:
        """Yield the labels of texts."""
        self.truncated, self.counted = self.scorer.truncated_texts, TextCounts()
        job = self.job
        return classify(self.scorer, rows, job.threshold, job.on_error, self.counted)

    def counts(self) -> Mapping[str, int]:
        truncated = self.scorer.truncated_texts - self.truncated
        return {**asdict(self.counted), "truncated": truncated}
