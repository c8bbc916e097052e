"""Views of next tokens."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hftool.output.view import View, escaped, line

if TYPE_CHECKING:
    from hftool.generation.candidates import Candidate


def _candidates_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import next_tokens

    return next_tokens.candidates(records, console)


def _positions_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import next_tokens

    return next_tokens.positions(records, console)


def _candidates_page(records: list[Any]) -> str:
    from hftool.output.pages.sliders import slider_page

    return slider_page(records)


def _candidates_compared_table(records: Iterable[Any], console: Any) -> Iterator[str]:
    from hftool.output.tables import next_tokens

    return next_tokens.candidates_compared(records, console)


CANDIDATE_COLUMNS = ("position", "rank", "id", "token", "prob", "logprob", "cumulative", "entropy")


def next_token_view(
    *, everywhere: bool, sampled: bool, models: bool, texts: bool, targets: bool
) -> View:
    """Return the view of `topk`'s candidates.

    Args:
        everywhere: whether they are of all positions.
        sampled: whether they have a probability after the filters.
        models: whether there are several models.
        texts: whether there are several texts.
        targets: whether they may be of a continuation.
    """
    columns = list(CANDIDATE_COLUMNS)
    if sampled:
        columns.insert(columns.index("prob") + 1, "sampled_prob")
        columns.append("sampled_entropy")
    if everywhere:
        columns.insert(1, "after")
    return View(
        columns=(*("index",) * texts, *("model",) * models, *columns, *("target",) * targets),
        text=_candidate_text,
        table=(
            _positions_table
            if everywhere
            else _candidates_compared_table
            if models
            else _candidates_table
        ),
        page=None if everywhere else _candidates_page,
    )


def _candidate_text(c: "Candidate") -> str:
    source = [value for value in (c.index, c.model) if value is not None]
    position = () if c.after is None else (c.position,)
    sampled = () if c.sampled_prob is None else (c.sampled_prob,)
    return line(*source, *position, c.rank, c.id, c.prob, *sampled, escaped(c.token))
