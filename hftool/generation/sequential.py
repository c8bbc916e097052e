"""Generate one text after another, with or without beam search."""

from collections.abc import Iterable, Iterator

from hftool.generation.generate import generate
from hftool.generation.records import CandidateGenerator, Generation, Piece, Request
from hftool.models.language_model import LanguageModel


def generate_each(
    language_model: LanguageModel,
    requests: Iterable[Request],
    candidate_generator: CandidateGenerator | None = None,
) -> Iterator[Piece | Generation]:
    """Generate a text for each request in turn. Beam search yields only records, without pieces.

    Raises: as `hftool.generation.generate.generate`.
    """
    for request in requests:
        if request.beams is None:
            yield from generate(language_model, request, candidate_generator=candidate_generator)
        else:
            from hftool.generation.beam_search import search

            yield from search(language_model, request, request.beams)
