"""Choose how to generate: text by text, in a batch, by beam search, or with guessed tokens."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace

from hftool.errors import HftoolError, UsageError
from hftool.generation.batch import generate_batch
from hftool.generation.model_defaults import complete_options
from hftool.generation.records import (
    CandidateGenerator,
    FailedRequest,
    Generation,
    Piece,
    Request,
)
from hftool.generation.sequential import generate_each
from hftool.generation.speculative import assistant_generator, prompt_lookup_generator
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.options.generation import GenerationOptions
from hftool.options.model import LoadOptions

log = logging.getLogger("hftool")


def generate_prompts(
    language_model: LanguageModel,
    requests: Iterable[Request | FailedRequest],
    options: GenerationOptions,
    candidate_generator: CandidateGenerator | None = None,
    *,
    stream: bool = True,
    lines: bool = False,
) -> Iterator[Piece | Generation | FailedRequest]:
    """Continue prompts: yield pieces of text as they are generated, and the records.

    Several sequences for a prompt are generated side by side, without pieces.

    Args:
        stream: yield pieces; otherwise only records.
        lines: where a request fails, yield a record with the cause, and go on with the next one.

    Raises: without `lines`, as `hftool.generation.generate.generate`.
    """
    events: Iterator[Piece | Generation | FailedRequest]
    options = complete_options(options, language_model.generation_config)
    if options.num_return_sequences != 1 and options.num_beams == 1:
        events = generate_batch(language_model, requests, None, candidate_generator)
    else:
        events = _generate_in_turn(language_model, requests, candidate_generator, lines=lines)
    for event in events:
        if isinstance(event, FailedRequest) and not lines:
            raise HftoolError(event.error)
        if stream or not isinstance(event, Piece):
            yield event
        if isinstance(event, FailedRequest):  # only now: the record ends the text on a terminal
            log.warning("line %d: %s", event.line, event.error)


def _generate_in_turn(
    language_model: LanguageModel,
    requests: Iterable[Request | FailedRequest],
    candidate_generator: CandidateGenerator | None,
    *,
    lines: bool,
) -> Iterator[Piece | Generation | FailedRequest]:
    for request in requests:
        if isinstance(request, FailedRequest):
            yield request
            continue
        try:
            yield from generate_each(language_model, [request], candidate_generator)
        except HftoolError as error:
            if not lines:
                raise
            yield FailedRequest(request.id, request.line, error.message)


def require_compatible(options: GenerationOptions) -> None:
    """Raise where options cannot be combined.

    Raises:
        UsageError: with the names of the options.
    """
    guesses = options.assistant_model is not None or options.prompt_lookup is not None
    if options.assistant_model is not None and options.prompt_lookup is not None:
        raise UsageError("--assistant-model and --prompt-lookup exclude each other")
    if complete_options(options, {}).num_beams != 1 and guesses:
        raise UsageError("--num-beams cannot be combined with --assistant-model or --prompt-lookup")


def load_candidate_generator(
    language_model: LanguageModel, load: LoadOptions, options: GenerationOptions
) -> CandidateGenerator | None:
    """Return the generator of guesses that the options ask for, if any.

    Raises:
        HftoolError: the assistant model cannot be loaded, or its vocabulary is a different one.
    """
    if options.prompt_lookup is None and options.assistant_model is None:
        return None
    beams = complete_options(options, language_model.generation_config).num_beams
    if beams != 1:
        log.warning(
            "the model's generation_config asks for %d beams, which need no drafts: --num-beams 1"
            " turns them off",
            beams,
        )
        return None
    if options.prompt_lookup is not None:
        return prompt_lookup_generator(options.prompt_lookup)
    assert options.assistant_model is not None
    source = replace(load, model=options.assistant_model, revision=None)
    return assistant_generator(language_model, load_language_model(source))
