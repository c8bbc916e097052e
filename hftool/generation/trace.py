"""A run of `sample` kept in a file, and held against a run made again.

A trace is JSON Lines: first what the run was made of, then each step's token and drawn number.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, TextIO

from hftool.errors import HftoolError
from hftool.generation.sampling import SamplingSettings
from hftool.generation.steps import Step
from hftool.models.load import LanguageModel

log = logging.getLogger("hftool")

FORMAT = 1
SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")


@dataclass(frozen=True)
class Trace:
    """A run: the model's name and fingerprint, its precision, the prompt's ids, the settings in
    force, and (id, drawn number) of each step; `picked` are the ids a person chose, by step."""

    model: str
    fingerprint: str
    dtype: str
    ids: tuple[int, ...]
    settings: SamplingSettings
    steps: tuple[tuple[int, float | None], ...]
    picked: dict[int, int]


def fingerprint(language_model: LanguageModel) -> str:
    """A hash of a model's shape and vocabulary; the weights are not in it."""
    config = language_model.model.config.get_text_config()
    shape = [getattr(config, name, None) for name in SHAPE]
    vocabulary = sorted(language_model.tokenizer.backend.get_vocab().items())
    return hashlib.sha256(json.dumps([shape, vocabulary]).encode()).hexdigest()


def write_trace(
    file: TextIO,
    steps: Iterable[Step],
    language_model: LanguageModel,
    ids: Iterable[int],
    settings: SamplingSettings,
) -> Iterator[Step]:
    """The steps as they come, each also written to the file."""
    head = {
        "format": FORMAT,
        "model": language_model.name,
        "fingerprint": fingerprint(language_model),
        "dtype": str(language_model.model.dtype).removeprefix("torch."),
        "ids": list(ids),
        "settings": asdict(settings),
    }
    file.write(json.dumps(head, ensure_ascii=False) + "\n")
    for step in steps:
        line = {"id": step.id, "drawn": step.drawn}
        file.write(json.dumps({**line, "picked": True} if step.picked else line) + "\n")
        yield step


def read_trace(text: str) -> Trace:
    """A trace out of its file's text.

    Raises:
        HftoolError: it is none.
    """
    try:
        head, *steps = (json.loads(line) for line in text.splitlines())
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']}, not {FORMAT}")
        trace = Trace(
            model=str(head["model"]),
            fingerprint=str(head["fingerprint"]),
            dtype=str(head["dtype"]),
            ids=tuple(map(int, head["ids"])),
            settings=_settings(head["settings"]),
            steps=tuple((int(step["id"]), step["drawn"]) for step in steps),
            picked={
                number: int(step["id"])
                for number, step in enumerate(steps, 1)
                if step.get("picked")
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        cause = f"it has no {error}" if isinstance(error, KeyError) else error
        raise HftoolError(f"this is no trace of `hftool sample`: {cause}") from None
    if not trace.ids or not trace.steps:
        raise HftoolError("this is no trace of `hftool sample`: it has no prompt or no steps")
    return trace


def _settings(values: dict[str, Any]) -> SamplingSettings:
    """Settings whose values have the types they were written with."""
    settings = SamplingSettings(**values)
    for item in fields(settings):
        value = getattr(settings, item.name)
        kinds = {"greedy": bool, "seed": int | None}.get(item.name, int | float)
        if not isinstance(value, kinds):
            raise ValueError(f"its {item.name} is {value!r}")
    return settings


def require_model(trace: Trace, language_model: LanguageModel) -> None:
    """Raise where a trace is of another model, or of another precision.

    Raises:
        HftoolError: with what to ask for.
    """
    if trace.fingerprint != fingerprint(language_model):
        raise HftoolError(
            f"the trace is of another model ({trace.model}) than {language_model.name}",
            f"-m {trace.model}",
        )
    rows = language_model.model.config.get_text_config().vocab_size
    if not all(0 <= token_id < rows for token_id in (*trace.ids, *trace.picked.values())):
        raise HftoolError(f"the trace has ids that {language_model.name} does not have")
    dtype = str(language_model.model.dtype).removeprefix("torch.")
    if trace.dtype != dtype:
        raise HftoolError(
            f"the trace is in {trace.dtype}, this run in {dtype}", f"--dtype {trace.dtype}"
        )


def compared(steps: Iterable[Step], trace: Trace) -> Iterator[Step]:
    """The steps of a run made again, as long as they are the trace's.

    Raises:
        HftoolError: a step differs.
    """
    count = 0
    for step, (token_id, drawn) in zip(steps, trace.steps, strict=False):
        if (step.id, step.drawn) != (token_id, drawn):
            ours, theirs = f"id {step.id}", f"id {token_id}"
            if step.id == token_id:
                ours, theirs = f"{step.drawn} drawn", f"{drawn} drawn"
            raise HftoolError(
                f"step {step.step} differs: {theirs} in the trace, {ours} now",
                "another version of torch or another device rounds differently",
            )
        count += 1
        yield step
    if count < len(trace.steps):
        raise HftoolError(f"the run ends after {count} steps, the trace after {len(trace.steps)}")
    log.info("all %d steps are those of the trace", count)
