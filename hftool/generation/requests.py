"""Make requests from prompts and options."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hftool.errors import HftoolError, UsageError, exclude
from hftool.generation.batch_file import BatchLine, each_record, read_record
from hftool.generation.model_defaults import (
    complete_options,
    log_unused_fields,
    most_new_tokens,
    stop_strings,
)
from hftool.generation.prefix_cache import require_context
from hftool.generation.records import BeamSettings, FailedRequest, Request
from hftool.generation.resolution import resolve_sampling
from hftool.generation.sampling import DRAWING, FIELDS, SamplingSettings
from hftool.models.language_model import LanguageModel
from hftool.options.generation import DEFAULT_MAX_NEW_TOKENS, GenerateOptions, GenerationOptions
from hftool.options.inputs import FileOptions
from hftool.options.sampling import SamplingOptions
from hftool.prompting.prompt import Prompt, prompt_ids, prompt_text
from hftool.prompting.reasoning import opens_thought


def requests_of_prompts(
    language_model: LanguageModel,
    prompts: Iterable[Prompt],
    options: GenerateOptions,
    *,
    lines: bool = False,
) -> Iterator[Request | FailedRequest]:
    """Yield a request for each prompt.

    For several sequences per prompt, yield as many requests, whose seeds count up; beam search
    needs only one, as it returns several sequences itself.

    Args:
        lines: the prompts are the lines of an input; one that cannot be a request yields the cause.

    Raises:
        HftoolError: without `lines`: a prompt is empty or longer than the context, or the chat
            template fails.
        UsageError: the options exclude each other.
    """
    generation = complete_options(options.generation, language_model.generation_config)
    sequences = generation.num_return_sequences or 1
    copies = 1 if generation.num_beams != 1 else sequences
    log_unused_fields(language_model)
    index = 0
    for line, prompt in enumerate(prompts, 1):
        try:
            ids = prompt_ids(language_model.tokenizer, prompt, options.prompting)
            first = make_request(
                language_model, prompt_text(prompt, language_model.tokenizer), ids, options
            )
        except HftoolError as error:
            if not lines or isinstance(error, UsageError):
                raise
            yield FailedRequest(None, line, error.message)
            index += sequences
            continue
        if copies > 1 and first.settings.greedy:
            raise UsageError(
                "greedy decoding would give the same text each time",
                "leave out --greedy, or use --num-beams or --num-return-sequences 1",
            )
        for copy in range(copies):
            settings = _add_to_seed(first.settings, copy)
            yield replace(first, index=index, line=line, settings=settings)
            index += 1
        index += sequences - copies


def _add_to_seed(settings: SamplingSettings, number: int) -> SamplingSettings:
    return settings if settings.seed is None else replace(settings, seed=settings.seed + number)


def requests_of_records(
    language_model: LanguageModel,
    lines: Iterable[BatchLine],
    files: FileOptions,
    options: GenerateOptions,
) -> Iterator[Request | FailedRequest]:
    """Yield a request for each record of a batch, or the cause of its failure.

    Without a seed, one is drawn for each record.
    """
    log_unused_fields(language_model, "num_return_sequences")
    options = replace(options, generation=replace(options.generation, num_return_sequences=1))
    make = functools.partial(request_of_record, language_model, options=options)
    for made in each_record(lines, files, make):
        if isinstance(made, FailedRequest):
            yield made
        else:
            line, given_id, request = made
            yield replace(request, index=line.index, id=given_id, line=line.number)


def request_of_record(
    language_model: LanguageModel, record: dict[str, Any], options: GenerateOptions
) -> Request:
    """Return the request for a batch record, whose own options override the others.

    Raises:
        HftoolError: as `read_record`; its prompt is empty or longer than the context; or the chat
            template fails.
        UsageError: as `read_record`.
    """
    prompt, options = read_record(record, options)
    ids = prompt_ids(language_model.tokenizer, prompt, options.prompting)
    return make_request(language_model, prompt_text(prompt, language_model.tokenizer), ids, options)


def make_request(
    language_model: LanguageModel, prompt: str, ids: list[int], options: GenerateOptions
) -> Request:
    """Return the request for a prompt whose token ids are `ids`.

    Raises:
        HftoolError: the prompt is longer than the context, or the model has no embedding for one of
            its ids.
        UsageError: the options have a value that is not allowed.
    """
    language_model.require_known(ids)
    prompt_ids, source = language_model.split_prompt(ids)
    require_context(language_model, len(prompt_ids))
    config = language_model.generation_config
    generation = complete_options(options.generation, config)
    beams = beam_settings(generation)
    if options.show_probs and (beams is not None or generation.num_return_sequences != 1):
        raise UsageError("--show-probs shows one text as it is generated: without beams, and alone")
    alternatives = generation.top_logprobs or 0
    with_logprobs = generation.logprobs or generation.top_logprobs is not None
    echo, tokenizer = "", language_model.tokenizer
    if generation.echo:
        templated = options.prompting.templated
        echo = tokenizer.decode(ids, generation.skip_special) if templated else prompt
    settings = sampling_settings(options.sampling, config, beams)
    return Request(
        prompt=prompt,
        ids=tuple(prompt_ids),
        source=source,
        settings=replace(settings, constraint=options.constraint),
        max_new_tokens=most_new_tokens(
            generation.max_new_tokens, config, len(prompt_ids), DEFAULT_MAX_NEW_TOKENS
        ),
        stop=stop_strings(generation.stop, config, options.constraint),
        skip_special=generation.skip_special,
        logprobs=alternatives if with_logprobs else None,
        with_probs=options.show_probs,
        echo=echo,
        opened_thought=opens_thought(tokenizer, ids) if options.prompting.templated else None,
        beams=beams,
    )


def sampling_settings(
    options: SamplingOptions, config: Mapping[str, Any], beams: BeamSettings | None
) -> SamplingSettings:
    """Return the sampling settings of a text. A beam search takes the best beams and only samples
    if an option or the model's generation_config asks for it.

    Raises:
        HftoolError: as `resolve_sampling`.
        UsageError: as `resolve_sampling`, or an option cannot be combined with beam search.
    """
    if beams is None:
        return resolve_sampling(options, config)
    drawing = (getattr(options, FIELDS[name]) for name in DRAWING)
    sampled = config.get("do_sample") is True or any(
        v is not None for v in (options.seed, *drawing)
    )
    settings = resolve_sampling(replace(options, greedy=options.greedy or not sampled), config)
    exclude({"--num-beams": True, "--top-n-sigma": settings.top_n_sigma > 0})
    exclude({"--num-beams": True, "--xtc-probability": settings.xtc_probability > 0})
    exclude({"--num-beams": True, "--samplers": bool(settings.samplers)})
    return settings


def beam_settings(options: GenerationOptions) -> BeamSettings | None:
    """Return how to run beam search, None for a single beam.

    Args:
        options: as `complete_options` returns them.
    """
    beams, sequences = options.num_beams or 1, options.num_return_sequences or 1
    penalty = 1.0 if options.length_penalty is None else options.length_penalty
    return BeamSettings(beams, sequences, penalty) if beams > 1 else None
