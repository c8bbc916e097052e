"""`score` on Ray."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hftool.generation.scored_sequences import TextEncoder, text_encoder
from hftool.generation.scoring import TextScore, score_texts
from hftool.inputs.records import Shape
from hftool.inputs.tables import TextRow
from hftool.jobs.tables import TableJob
from hftool.models.language_model import LanguageModel
from hftool.options.inputs import FileOptions, PromptOptions
from hftool.options.model import ExactLoadOptions
from hftool.options.score import ScoreOptions
from hftool.output.view import View
from hftool.output.views.score import scores_view


@dataclass(frozen=True, kw_only=True)
class ScoreJob(TableJob):
    """What to score, and how: the options of `score` that a job's workers need."""

    load: ExactLoadOptions
    prompting: PromptOptions
    scoring: ScoreOptions

    @property
    def column(self) -> str | None:
        """The column with what precedes each text."""
        return self.scoring.given_column

    def load_model(self) -> "_Scorer":
        """Load the model."""
        from hftool.models.load import load_language_model

        model = load_language_model(self.load, masked=True)
        files = FileOptions(errors=self.inputs.errors)
        return _Scorer(self, model, text_encoder(model, files, self.prompting, self.scoring))


@dataclass
class _Scorer:
    job: ScoreJob
    model: LanguageModel
    encode: TextEncoder

    def view(self, shape: Shape) -> View:
        return scores_view(shape, errors=self.job.on_error == "report")

    def records(self, rows: Iterable[TextRow], start: int) -> Iterator[TextScore]:
        """Yield the scores of texts. Their `index` counts the rows of the file."""
        job = self.job
        return score_texts(self.model, rows, self.encode, job.scoring, job.on_error, start)

    def counts(self) -> Mapping[str, int]:
        return {}
