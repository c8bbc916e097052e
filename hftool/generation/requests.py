"""Requests for prompts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hftool.errors import UsageError
from hftool.generation.prefix_cache import require_context
from hftool.generation.records import Beams, Request
from hftool.generation.sampling import SamplingSettings, resolve_sampling
from hftool.models.load import LanguageModel
from hftool.options.generation import GenerationOptions, SamplingOptions
from hftool.options.inputs import PromptOptions
from hftool.prompting.prompt import prompt_ids

DRAWING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")
"""The sampling options that have a sense only where tokens are drawn."""


@dataclass(frozen=True)
class GenerateOptions:
    """All options a generation is made of."""

    prompting: PromptOptions
    sampling: SamplingOptions
    generation: GenerationOptions


def requests_of_prompts(
    language_model: LanguageModel, prompts: Iterable[str], asked: GenerateOptions
) -> Iterator[Request]:
    """A request for each prompt, or one for each sequence that shall be returned for it: they
    differ by their seeds, which count up.

    Raises:
        HftoolError: a prompt is empty or longer than the context, or the chat template fails.
        UsageError: options that exclude each other.
    """
    options = asked.generation
    copies = 1 if options.num_beams > 1 else options.num_return_sequences
    index = 0
    for prompt in prompts:
        ids = prompt_ids(language_model.tokenizer, prompt, asked.prompting)
        first = _request(language_model, prompt, ids, asked)
        if copies > 1 and first.settings.greedy:
            raise UsageError("greedy sequences are all the same", "sample, or use --num-beams")
        for copy in range(copies):
            settings = _with_seed(first.settings, copy)
            yield replace(first, index=index, settings=settings)
            index += 1
        index += options.num_return_sequences - copies


def _with_seed(settings: SamplingSettings, more: int) -> SamplingSettings:
    return settings if settings.seed is None else replace(settings, seed=settings.seed + more)


def _request(
    language_model: LanguageModel, prompt: str, ids: list[int], asked: GenerateOptions
) -> Request:
    require_context(language_model, len(ids))
    options, sampling = asked.generation, asked.sampling
    beams = None
    if options.num_beams > 1:
        beams = Beams(options.num_beams, options.num_return_sequences, options.length_penalty)
        # Beam search takes the best beams; it draws only where sampling is asked for.
        sampled = any(getattr(sampling, name) is not None for name in DRAWING)
        sampling = replace(sampling, greedy=sampling.greedy or not sampled)
    alternatives = options.top_logprobs or 0
    templated = asked.prompting.templated
    tokenizer = language_model.tokenizer
    shown = tokenizer.decode(ids, options.skip_special) if templated else prompt
    return Request(
        prompt=prompt,
        ids=tuple(ids),
        settings=resolve_sampling(sampling, language_model.generation_config),
        max_new_tokens=options.max_new_tokens,
        stop=stop_texts(options.stop),
        skip_special=options.skip_special,
        logprobs=alternatives if options.logprobs or options.top_logprobs is not None else None,
        echo=shown if options.echo else "",
        beams=beams,
    )


def stop_texts(given: Sequence[str] | None) -> tuple[str, ...]:
    """Where a text ends. Raises: UsageError where one of them is empty."""
    if given and "" in given:
        raise UsageError("a stop text is empty")
    return tuple(given or ())
