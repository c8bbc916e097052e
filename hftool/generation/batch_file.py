"""Requests from the records of a batch file."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from hftool.errors import HftoolError, UsageError
from hftool.generation.records import Failure, Generation, Request
from hftool.generation.requests import GenerateOptions, _request
from hftool.inputs.texts import decoded, raw_lines
from hftool.models.load import LanguageModel
from hftool.options.generation import GenerationOptions, SamplingOptions
from hftool.options.inputs import FileOptions, InputOptions
from hftool.options.ranges import option_ranges
from hftool.prompting.chat_template import chat_template
from hftool.prompting.messages import as_messages
from hftool.prompting.prompt import prompt_ids

Options = TypeVar("Options", SamplingOptions, GenerationOptions)

RECORD_OPTIONS = (
    *(item.name for item in fields(SamplingOptions)),
    *("max_new_tokens", "stop", "logprobs", "top_logprobs", "num_beams", "length_penalty"),
)
"""The options that a batch record may give for itself."""


def shared_fields(item: Request | Failure) -> dict[str, Any]:
    """What a request shares with its record, to tell whether the record is its."""
    if isinstance(item, Failure):
        return {"line": item.line}
    return {"id": item.id, "prompt": item.prompt}


class Tally:
    """Counts the records of a batch that fail, those of a run before that it goes on with too."""

    def __init__(self, failed_before: int) -> None:
        self._failed = failed_before

    def counted(
        self, records: Iterable[Generation | Failure]
    ) -> Iterator[str | Generation | Failure]:
        """The records, each generation after its text."""
        for record in records:
            if isinstance(record, Failure):
                self._failed += 1
            else:
                yield record.text
            yield record

    def require_none_failed(self) -> None:
        """Raise where records have failed.

        Raises:
            HftoolError: with how many.
        """
        if self._failed:
            count = f"{self._failed} record" + "s" * (self._failed > 1)
            raise HftoolError(f"{count} failed", 'the field "error" says why')


def record_lines(
    batch: Path, prompt: str | None, inputs: InputOptions, generation: GenerationOptions
) -> Iterator[bytes]:
    """The lines of a batch file (`-` is stdin).

    Raises:
        UsageError: other prompts were given as well, or several sequences asked for.
        HftoolError: the file can't be read.
    """
    if prompt is not None or inputs.file is not None or inputs.lines:
        raise UsageError("--batch names the prompts: no other text, --file or --lines beside it")
    if generation.num_return_sequences > 1:
        raise UsageError("--batch gives one record for each: repeat a line for several sequences")
    return raw_lines(FileOptions(batch))


def requests_of_records(
    language_model: LanguageModel,
    lines: Iterable[bytes],
    files: FileOptions,
    asked: GenerateOptions,
) -> Iterator[Request | Failure]:
    """A request for each record of a batch (JSON Lines), or why there is none; empty lines are
    skipped. Without a seed each record draws its own.

    A record is `{"prompt": …}` or `{"messages": […]}`, with any `id` and any of `RECORD_OPTIONS`.
    """
    index = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record: Any = None
        try:
            record = _parsed(decoded(line, number, files))
            request = _of_record(language_model, record, asked)
            yield replace(request, index=index, id=record.get("id"), line=number)
        except HftoolError as error:
            given = record.get("id") if isinstance(record, dict) else None
            yield Failure(given, number, str(error))
        index += 1


def _parsed(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_constant=_no_number)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise HftoolError("the record has half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise HftoolError(f"the line is no JSON: {error}") from None
    if not isinstance(record, dict):
        raise HftoolError("the line is no JSON object")
    return record


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _of_record(
    language_model: LanguageModel, record: dict[str, Any], asked: GenerateOptions
) -> Request:
    if unknown := record.keys() - {"id", "prompt", "messages", *RECORD_OPTIONS}:
        raise HftoolError(f"unknown field {', '.join(sorted(unknown))}")
    if ("prompt" in record) == ("messages" in record):
        raise HftoolError('a record has either "prompt" or "messages"')
    asked = GenerateOptions(
        asked.prompting,
        _overridden(asked.sampling, record),
        _overridden(asked.generation, record),
    )
    tokenizer = language_model.tokenizer
    if "messages" in record:
        messages = as_messages(record["messages"])
        prompt = messages[-1]["content"]
        ids = chat_template(tokenizer, asked.prompting.chat_template).ids(messages)
    else:
        prompt = record["prompt"]
        if not isinstance(prompt, str):
            raise HftoolError('"prompt" is no text')
        ids = prompt_ids(tokenizer, prompt, asked.prompting)
    return _request(language_model, prompt, ids, asked)


def _overridden(options: Options, record: Mapping[str, Any]) -> Options:
    """The options with what a record gives for itself; null leaves an option as it is.

    Raises:
        UsageError: a value of the wrong type, or out of the option's range.
    """
    kind: Any = type(options)
    settings = option_ranges(kind)
    given = {
        name: settings[name].checked(record[name])
        for name in settings.keys() & set(RECORD_OPTIONS)
        if record.get(name) is not None
    }
    if isinstance(options, GenerationOptions) and record.get("stop") is not None:
        given["stop"] = _texts(record["stop"])
    return replace(options, **given)


def _texts(stop: Any) -> list[str]:
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError("stop must be a text or a list of texts")
    return texts
