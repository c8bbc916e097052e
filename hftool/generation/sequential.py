"""Generate one text after another."""

from collections.abc import Iterable, Iterator

from hftool.generation.generate import generate
from hftool.generation.records import CandidateGenerator, Generation, Request
from hftool.models.load import LanguageModel


def generate_each(
    language_model: LanguageModel,
    requests: Iterable[Request],
    draft: CandidateGenerator | None = None,
) -> Iterator[str | Generation]:
    """One prompt's continuation after the other: pieces of text as they are made, and records.

    Raises: as `hftool.generation.generate.generate`.
    """
    for request in requests:
        if request.beams is None:
            yield from generate(language_model, request, draft=draft)
            continue
        from hftool.generation.beam_search import search

        for record in search(language_model, request, request.beams):
            yield record.text
            yield record
