"""Which way a text is generated: a token at a time, with a draft, or by beams."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from hftool.drafting import assistant, prompt_lookup
from hftool.errors import UsageError
from hftool.generation import Draft, Generation, Request, generate
from hftool.generation_options import GenerationOptions
from hftool.models.load import LanguageModel, load_language_model
from hftool.options import LoadOptions


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


def draft_of(
    language_model: LanguageModel, load: LoadOptions, options: GenerationOptions
) -> Draft | None:
    """What guesses ahead, where one is asked for.

    Raises:
        HftoolError: the assistant model can't be loaded, or has another vocabulary.
    """
    if options.prompt_lookup is not None:
        return prompt_lookup(options.prompt_lookup)
    if options.assistant_model is not None:
        source = replace(load, model=options.assistant_model, revision=None)
        return assistant(language_model, load_language_model(source))
    return None


def generate_each(
    language_model: LanguageModel, requests: Iterable[Request], draft: Draft | None = None
) -> Iterator[str | Generation]:
    """One prompt's continuation after the other: pieces of text as they are made, and records.

    Raises: as `hftool.generation.generate`.
    """
    for request in requests:
        if request.beams is None:
            yield from generate(language_model, request, draft=draft)
            continue
        from hftool.beams import search

        for record in search(language_model, request, request.beams):
            yield record.text
            yield record
