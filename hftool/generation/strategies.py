"""Several generations side by side: one pass of the model gives each its next token."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from hftool.errors import HftoolError, UsageError
from hftool.generation.batch import generate_batch
from hftool.generation.records import CandidateGenerator, Failure, Generation, Request
from hftool.generation.sequential import generate_each
from hftool.generation.speculative import assistant_generator, prompt_lookup_generator
from hftool.models.load import LanguageModel, load_language_model
from hftool.options.generation import GenerationOptions
from hftool.options.model import LoadOptions


def generate_prompts(
    language_model: LanguageModel,
    requests: Iterable[Request],
    options: GenerationOptions,
    draft: CandidateGenerator | None = None,
    *,
    streamed: bool = True,
) -> Iterator[str | Generation]:
    """The continuations of prompts: their text as it is made, or with `streamed` off as a whole,
    each with its record behind. Several sequences of a prompt are made side by side.

    Raises: as `hftool.generation.generate.generate`.
    """
    events: Iterator[str | Generation | Failure]
    if options.num_return_sequences > 1 and options.num_beams == 1:
        events = generate_batch(language_model, requests, None, draft)
        streamed = False
    else:
        events = generate_each(language_model, requests, draft)
    for event in events:
        if isinstance(event, Failure):
            raise HftoolError(event.error)
        if isinstance(event, Generation) and not streamed:
            yield event.text
        if isinstance(event, Generation) or streamed:
            yield event


def require_compatible(options: GenerationOptions) -> None:
    """Raise where options exclude each other.

    Raises:
        UsageError: with which.
    """
    drafted = options.assistant_model is not None or options.prompt_lookup is not None
    if options.assistant_model is not None and options.prompt_lookup is not None:
        raise UsageError("--assistant-model and --prompt-lookup exclude each other")
    if options.num_beams > 1 and drafted:
        raise UsageError(
            "beam search takes no draft: neither --assistant-model nor --prompt-lookup"
        )
    if 1 < options.num_beams < options.num_return_sequences:
        raise UsageError(
            f"{options.num_beams} beams cannot give {options.num_return_sequences} sequences",
            "--num-beams must be as many as --num-return-sequences at least",
        )


def candidate_generator(
    language_model: LanguageModel, load: LoadOptions, options: GenerationOptions
) -> CandidateGenerator | None:
    """What guesses ahead, where one is asked for.

    Raises:
        HftoolError: the assistant model can't be loaded, or has another vocabulary.
    """
    if options.prompt_lookup is not None:
        return prompt_lookup_generator(options.prompt_lookup)
    if options.assistant_model is not None:
        source = replace(load, model=options.assistant_model, revision=None)
        return assistant_generator(language_model, load_language_model(source))
    return None
