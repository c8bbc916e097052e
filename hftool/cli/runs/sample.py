"""Generate step by step with a model that is loaded here, or replay a recorded run."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hftool.cli.token_picker import picked_steps
from hftool.generation.candidates import Step
from hftool.generation.steps import StepSampler, sampler_of_prompt
from hftool.generation.trace import (
    read_trace,
    recording,
    replay_options,
    replayed,
    sampler_of_trace,
)
from hftool.inputs.texts import one_text
from hftool.models.load import load_language_model
from hftool.options.constraints import Constraint
from hftool.options.inputs import FileOptions, PromptOptions
from hftool.options.model import ExactLoadOptions
from hftool.options.output import PictureOptions
from hftool.options.sample import StepOptions
from hftool.options.sampling import SamplingOptions
from hftool.output.views.generation import steps_view
from hftool.output.writer import write
from hftool.prompting.prompt import Prompt


def write_steps(
    load: ExactLoadOptions,
    prompt: Prompt,
    prompting: PromptOptions,
    sampling: SamplingOptions,
    constraint: Constraint | None,
    stepping: StepOptions,
    output: PictureOptions,
) -> None:
    """Continue a prompt, and write each step with its candidates. Raises: as `sampler_of_prompt`"""
    sampler = sampler_of_prompt(
        load_language_model(load),
        prompt,
        prompting,
        sampling,
        max_steps=stepping.steps,
        k=stepping.k,
        constraint=constraint,
    )
    steps = picked_steps(sampler, output.color) if stepping.pick else sampler.run()
    _write(sampler, steps, load, stepping, output)


def replay_steps(
    trace: Path,
    load: ExactLoadOptions,
    given: Mapping[str, tuple[str, Any]],
    stepping: StepOptions,
    output: PictureOptions,
) -> None:
    """Compute the steps of a recorded run again, and write them.

    Args:
        given: the options of the command line, as `given_options` returns them.

    Raises:
        UsageError: they contradict the trace.
        HftoolError: a step differs from the trace, or it can't be read.
    """
    run = read_trace(one_text(None, FileOptions(trace)))
    load = replay_options(run, load, given)
    sampler = sampler_of_trace(load_language_model(load), run, k=stepping.k)
    _write(sampler, replayed(sampler, run), load, stepping, output)


def _write(
    sampler: StepSampler,
    steps: Iterator[Step],
    load: ExactLoadOptions,
    stepping: StepOptions,
    output: PictureOptions,
) -> None:
    view = steps_view(sampler.prompt, picked=stepping.pick, show_probs=stepping.show_probs)
    with recording(stepping.trace, load, sampler, steps) as recorded:
        write(recorded, view, output)
