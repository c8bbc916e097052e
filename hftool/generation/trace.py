"""Record a run of `sample` in a file, replay it, and check that each step is the same.

A trace is JSON Lines. Its first line describes the run: model, prompt and settings. Each further
line has a step's token and the random number that drew it. A replay takes all of it from the trace.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO, cast, get_args

from hftool.atomic_files import atomic_file
from hftool.errors import HftoolError, UsageError
from hftool.generation.candidates import Step
from hftool.generation.sampling import SamplingSettings
from hftool.generation.steps import StepSampler
from hftool.models.language_model import LanguageModel
from hftool.models.references import GgufFile, LocalFolder, resolve_reference
from hftool.options.constraints import Constraint, ConstraintOptions
from hftool.options.inputs import PromptOptions
from hftool.options.model import (
    LONG_DTYPES,
    Dtype,
    ExactLoadOptions,
    LoadOptions,
    Quantization,
)

log = logging.getLogger("hftool")

FORMAT = 2
# Options of a machine rather than of a run; a trace must not allow a repository's code to run.
NOT_IN_TRACE = (
    "model",
    "dtype",
    "device",
    "offline",
    "hub_token",
    "trust_remote_code",
    "no_daemon",
)
SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")


@dataclass(frozen=True)
class Trace:
    """A recorded run.

    Attributes:
        model: the model's name.
        fingerprint: as `fingerprint`.
        dtype: the precision of the model's weights.
        load: other options that loaded the model, such as `quantize`.
        ids: the prompt's tokens.
        settings: the resolved sampling settings.
        limit: the most steps that the run could have had.
        steps: each step's token id and drawn number.
        picked: the token ids that the user picked, by the number of the step (from 1).
    """

    model: str
    fingerprint: str
    dtype: str
    load: dict[str, Any]
    ids: tuple[int, ...]
    settings: SamplingSettings
    limit: int
    steps: tuple[tuple[int, float | None], ...]
    picked: dict[int, int]


def fingerprint(language_model: LanguageModel) -> str:
    """Return a hash of a model's shape and vocabulary, but not of its weights."""
    config = language_model.model.config.get_text_config()
    shape = [getattr(config, name, None) for name in SHAPE]
    vocabulary = sorted(language_model.tokenizer.backend.get_vocab().items())
    return hashlib.sha256(json.dumps([shape, vocabulary]).encode()).hexdigest()


@contextmanager
def recording(
    path: Path | None, load: LoadOptions, sampler: StepSampler, steps: Iterator[Step]
) -> Iterator[Iterator[Step]]:
    """Provide a sampler's steps, each of which is also written to a trace, if `path` names one.

    Args:
        load: the options that loaded the sampler's model.

    The file appears, complete, when the block ends without an error.

    Raises:
        HftoolError: the file cannot be written.
    """
    if path is None:
        yield steps
        return
    with atomic_file(path) as file:
        yield _recorded(file, load, sampler, steps)


def _recorded(
    file: TextIO, load: LoadOptions, sampler: StepSampler, steps: Iterable[Step]
) -> Iterator[Step]:
    head = {
        "format": FORMAT,
        "model": _absolute(sampler.language_model.name),
        "fingerprint": fingerprint(sampler.language_model),
        "dtype": _dtype(sampler.language_model),
        "load": {n: value for n, value in asdict(load).items() if n not in NOT_IN_TRACE},
        "ids": sampler.prompt_ids,
        "settings": asdict(sampler.settings),
        "limit": sampler.limit,
    }
    file.write(json.dumps(head, ensure_ascii=False) + "\n")
    for step in steps:
        line = {"id": step.id, "drawn": step.drawn}
        file.write(json.dumps({**line, "picked": True} if step.picked else line) + "\n")
        yield step


def _absolute(name: str) -> str:
    """Return a model's name, or an absolute path, which means the same in every folder."""
    path = Path(name).expanduser()
    local = path.exists() and isinstance(resolve_reference(name), LocalFolder | GgufFile)
    return str(path.resolve()) if local else name


def _dtype(language_model: LanguageModel) -> str:
    return str(language_model.model.dtype).removeprefix("torch.")


def read_trace(text: str) -> Trace:
    """Read a trace from the text of its file.

    Raises:
        HftoolError: the text is not a trace.
    """
    try:
        head, *steps = (json.loads(line) for line in text.splitlines())
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']}, not {FORMAT}")
        trace = Trace(
            model=str(head["model"]),
            fingerprint=str(head["fingerprint"]),
            dtype=str(head["dtype"]),
            load=dict(head["load"]),
            ids=tuple(map(int, head["ids"])),
            settings=_settings(head["settings"]),
            limit=int(head["limit"]),
            steps=tuple((int(step["id"]), step["drawn"]) for step in steps),
            picked={
                number: int(step["id"])
                for number, step in enumerate(steps, 1)
                if step.get("picked")
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        cause = f"{error} is missing" if isinstance(error, KeyError) else error
        raise HftoolError(f"this is not a trace of `hftool sample`: {cause}") from None
    quantize, revision = trace.load.get("quantize", "none"), trace.load.get("revision")
    known = trace.dtype in get_args(Dtype) and quantize in get_args(Quantization)
    if not known or not isinstance(revision, str | None):
        raise HftoolError("this is not a trace of `hftool sample`: it names an unknown precision")
    if not trace.ids or not trace.steps:
        raise HftoolError("this is not a trace of `hftool sample`: it has no prompt or no steps")
    return trace


def _settings(values: dict[str, Any]) -> SamplingSettings:
    """Make settings from JSON, and check the types of their values."""
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    if values.get("constraint") is not None:
        values["constraint"] = Constraint(**values["constraint"])
    settings = SamplingSettings(**values)
    kinds: dict[str, Any] = {"greedy": bool, "seed": int | None, "further": dict}
    kinds["think_tokens"] = int | None
    kinds |= dict.fromkeys(("samplers", "bias", "ban"), tuple)
    kinds["constraint"] = Constraint | None
    for item in fields(settings):
        value = getattr(settings, item.name)
        right = isinstance(value, kinds.get(item.name, int | float))
        if not right or (isinstance(value, tuple) and set(map(type, value)) - {str}):
            raise ValueError(f"its {item.name} is {value!r}")
    return settings


def replay_options(
    trace: Trace, load: ExactLoadOptions, given: Mapping[str, tuple[str, Any]]
) -> ExactLoadOptions:
    """Return the options that load a trace's model as its run did.

    Args:
        load: the options of the command line.
        given: which options the command line has, by name: how each is written, and its value.

    Raises:
        UsageError: options of the command line contradict the trace; the message names them all.
    """
    prompt = {"prompt", "pick", "file", "errors", *(f.name for f in fields(PromptOptions))}
    prompt |= {f.name for f in fields(ConstraintOptions)}
    if useless := [written for name, (written, _) in given.items() if name in prompt]:
        raise UsageError(
            f"--replay takes its prompt from the trace: leave out {', '.join(useless)}"
        )
    recorded = {**trace.load, **asdict(trace.settings), "steps": len(trace.steps)}
    recorded["dtype"] = trace.dtype
    recorded["samplers"] = ";".join(trace.settings.samplers)
    recorded |= {name: list(getattr(trace.settings, name)) for name in ("bias", "ban")}
    if trace.settings.greedy:
        recorded["temperature"] = 0.0
    different = [
        f"{written} {value} (the trace: {recorded[name]})"
        for name, (written, value) in given.items()
        if name in recorded and _long(value) not in ("auto", recorded[name])
    ]
    if different:
        raise UsageError(
            f"the command line contradicts the trace: {', '.join(different)}",
            "leave these options out: --replay takes them from the trace",
        )
    known = {item.name for item in fields(load)} - set(NOT_IN_TRACE)
    same: Any = {name: value for name, value in trace.load.items() if name in known}
    model = load.model if "model" in given else trace.model
    return replace(load, model=model, dtype=cast(Dtype, trace.dtype), **same)


def _long(value: Any) -> Any:
    return LONG_DTYPES.get(value, value) if isinstance(value, str) else value


def sampler_of_trace(language_model: LanguageModel, trace: Trace, *, k: int) -> StepSampler:
    """Return a sampler that continues a trace's prompt with its settings.

    Raises:
        HftoolError: as `require_same_model`.
    """
    require_same_model(trace, language_model)
    return StepSampler(language_model, trace.ids, trace.settings, max_steps=trace.limit, k=k)


def require_same_model(trace: Trace, language_model: LanguageModel) -> None:
    """Raise where a trace comes from another model or from another precision.

    Raises:
        HftoolError: with the options that load the right model.
    """
    if trace.fingerprint != fingerprint(language_model):
        raise HftoolError(
            f"the trace comes from {trace.model}, a different model than {language_model.name}",
            f"leave out -m/--model, or use -m {trace.model}",
        )
    rows = language_model.embedding_rows
    if not all(0 <= token_id < rows for token_id in (*trace.ids, *trace.picked.values())):
        raise HftoolError(f"the trace has ids that {language_model.name} does not have")
    dtype = _dtype(language_model)
    if trace.dtype != dtype:
        raise HftoolError(
            f"the trace is in {trace.dtype}, this run in {dtype}", f"use --dtype {trace.dtype}"
        )


def replayed(sampler: StepSampler, trace: Trace) -> Iterator[Step]:
    """Yield the steps of a trace's run, computed again, as long as they are the same.

    Args:
        sampler: as `sampler_of_trace` returns it.

    Raises:
        HftoolError: a step differs, or the run ends early.
    """
    count = 0
    for (token_id, drawn), step in zip(trace.steps, sampler.run(trace.picked), strict=False):
        if (step.id, step.drawn) != (token_id, drawn):
            ours, theirs = f"id {step.id}", f"id {token_id}"
            if step.id == token_id:
                ours, theirs = f"{step.drawn} drawn", f"{drawn} drawn"
            raise HftoolError(
                f"step {step.step} differs: {theirs} in the trace, {ours} now",
                "use the device and the version of torch of the recorded run: others round"
                " differently",
            )
        count += 1
        yield step
    if count < len(trace.steps):
        raise HftoolError(f"the run ends after {count} steps, the trace after {len(trace.steps)}")
    log.info("all %d steps are the same as in the trace", count)
