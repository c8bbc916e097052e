"""Read a batch file: a prompt and the options of its own in each record."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from hftool.errors import HftoolError, UsageError
from hftool.generation.constraints import RECORD_FIELDS, constraint_of_record
from hftool.generation.openai_batch import given_id, is_openai, own_record
from hftool.generation.records import FailedRequest, Generation, Piece
from hftool.inputs.files import format_by_suffix
from hftool.inputs.table_files import open_records
from hftool.inputs.texts import decoded, raw_lines
from hftool.options.generation import GenerateOptions, GenerationOptions
from hftool.options.inputs import FileOptions, InputOptions, PromptOptions, TableInputOptions
from hftool.options.ranges import option_ranges
from hftool.options.sampling import SamplingOptions
from hftool.prompting.messages import FUNCTIONS, TEMPLATE_FIELDS, as_chat
from hftool.prompting.prompt import GivenIds, Prompt, arguments_of, chat_of_text, overlaid
from hftool.tokenization.given_ids import parse_ids

OPENINGS = ("", "{", "[", '"')  # of a line that is meant to be JSON

Event = TypeVar("Event", bound=Piece | Generation | FailedRequest)
Made = TypeVar("Made")
Options = TypeVar("Options", SamplingOptions, GenerationOptions)

RECORD_OPTIONS = (
    *(item.name for item in fields(SamplingOptions)),
    *("max_new_tokens", "stop", "logprobs", "top_logprobs", "num_beams", "length_penalty"),
)
"""The options that a batch record can set for itself."""
CHAT_FIELDS: dict[str, type] = {
    **dict(zip(TEMPLATE_FIELDS, (list, list, dict, bool), strict=True)),
    **{FUNCTIONS: list, "template": str, "no_generation_prompt": bool},
}
"""What a batch record can say about its chat beside its messages."""
KNOWN_FIELDS = {
    *("id", "prompt", "messages"),
    *(*CHAT_FIELDS, *RECORD_OPTIONS, *RECORD_FIELDS),
}
_KINDS = {list: "a list", dict: "an object", str: "text", bool: "true or false"}


def completion_tokens(record: Generation | FailedRequest) -> int:
    """Return how many tokens were generated for a record."""
    return 0 if isinstance(record, FailedRequest) else record.completion_tokens


class FailureCounter:
    """Counts the failed records of a run, starting from those of an earlier run that this one
    resumes, and the texts that were cut off before they satisfied their constraint.

    Args:
        named: what the error calls a record.
        hint: the hint of the error.
    """

    def __init__(
        self,
        failed_before: int = 0,
        named: str = "record",
        hint: str | None = 'see the "error" field in the output',
    ) -> None:
        self._failed, self._named, self._hint = failed_before, named, hint
        self._cut_off = 0

    def count(self, records: Iterable[Event]) -> Iterator[Event]:
        """Pass the records on, and count those that failed."""
        for record in records:
            self._failed += isinstance(record, FailedRequest)
            self._cut_off += isinstance(record, Generation) and record.valid is False
            yield record

    def require_none(self) -> None:
        """Raise where records have failed, or texts don't satisfy their constraint.

        Raises:
            HftoolError: with their number.
        """
        if self._failed:
            count = f"{self._failed} {self._named}" + "s" * (self._failed > 1)
            raise HftoolError(f"{count} failed", self._hint)
        if self._cut_off:
            which = "the text" if self._cut_off == 1 else f"{self._cut_off} texts"
            raise HftoolError(
                f"{which} ended before satisfying the constraint",
                'raise --max-new-tokens; with --json, the field "valid" tells which texts are',
            )


def batch_lines(
    batch: Path, prompt: str | None, inputs: InputOptions, generation: GenerationOptions
) -> Iterator[bytes]:
    """Return the lines of a batch file (`-` is stdin).

    Raises:
        UsageError: as `require_only_batch`.
        HftoolError: the file cannot be read.
    """
    require_only_batch(prompt, inputs, generation)
    return record_lines(batch)


def record_lines(file: Path) -> Iterator[bytes]:
    """Return the lines of a batch file; for a Parquet file, its rows as JSON.

    Raises:
        HftoolError: the file cannot be read.
    """
    if format_by_suffix(file) != "parquet":
        return raw_lines(FileOptions(file))
    rows = open_records(file, "parquet", TableInputOptions()).records
    return (json.dumps(dict(_row(row)), default=str).encode() for _, row in rows)


def _row(row: Mapping[str, Any] | HftoolError) -> Mapping[str, Any]:
    if isinstance(row, HftoolError):
        raise row
    return row


def require_only_batch(
    prompt: str | None, inputs: InputOptions, generation: GenerationOptions
) -> None:
    """Raise where options don't go with a batch.

    Raises:
        UsageError: other prompts were given as well, or several sequences were asked for.
    """
    if prompt is not None or inputs.file is not None or inputs.lines:
        raise UsageError("--batch takes all prompts from its file: leave out TEXT, --file, --lines")
    if (generation.num_return_sequences or 1) > 1:
        raise UsageError(
            "--batch generates one text per record, so --num-return-sequences must be 1",
            "repeat a line of the file to get several texts for it",
        )


@dataclass(frozen=True)
class BatchLine:
    """A line of a batch file: its number among the records (from 0) and in the file (from 1)."""

    index: int
    number: int
    data: bytes


def numbered_records(lines: Iterable[bytes]) -> Iterator[BatchLine]:
    """Yield the lines of a batch file that hold something."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    for index, (number, line) in enumerate(numbered):
        yield BatchLine(index, number, line)


def each_record(
    lines: Iterable[BatchLine], files: FileOptions, make: Callable[[dict[str, Any]], Made]
) -> Iterator[tuple[BatchLine, Any, Made] | FailedRequest]:
    """Yield the line of each record of a batch (JSON Lines), its `id`, and what `make` makes of it,
    or the cause of its failure. The records may have OpenAI's form.
    """
    for line in lines:
        id_: Any = None
        try:
            record = parse_record(decoded(line.data, line.number, files))
            id_ = given_id(record)
            made = make(own_record(record) if is_openai(record) else record)
        except HftoolError as error:
            yield FailedRequest(id_, line.number, str(error))
        else:
            yield line, id_, made


def parse_record(line: str) -> dict[str, Any]:
    """Parse a line of a batch file.

    Raises:
        HftoolError: it is not a JSON object.
    """
    try:
        record = json.loads(line, parse_constant=_reject_constant)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise HftoolError("the record has half of a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        plain = "" if line.lstrip()[:1] in OPENINGS else "; prompts as plain text: --lines -f FILE"
        raise HftoolError(f"the line is not valid JSON: {error}{plain}") from None
    if not isinstance(record, dict):
        raise HftoolError("the line is not a JSON object")
    return record


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def read_record(record: dict[str, Any], options: GenerateOptions) -> tuple[Prompt, GenerateOptions]:
    """Return the prompt of a batch record, and its options, which override the others.

    A record is `{"prompt": …}` or `{"messages": […]}`, with any `id`, any of `RECORD_OPTIONS` and
    one of `RECORD_FIELDS`.

    Raises:
        HftoolError: the record has fields that are unknown, missing or of the wrong type.
        UsageError: an option has a value that is not allowed.
    """
    if unknown := record.keys() - KNOWN_FIELDS:
        raise HftoolError(f"unknown field {', '.join(sorted(unknown))}")
    record = {name: value for name, value in record.items() if value is not None}
    if ("prompt" in record) == ("messages" in record):
        raise HftoolError('a record must have either "prompt" or "messages"')
    prompt, prompting = _prompt(record, options.prompting)
    return prompt, GenerateOptions(
        prompting,
        _override(options.sampling, record),
        _override(options.generation, record),
        constraint=constraint_of_record(record, options.constraint),
    )


def _prompt(record: Mapping[str, Any], options: PromptOptions) -> tuple[Prompt, PromptOptions]:
    """Return the prompt of a record, and how it becomes ids. What the record says about its chat
    comes before the options.

    Raises:
        HftoolError: the prompt or one of those fields is not what it should be.
    """
    own = {name: record[name] for name in CHAT_FIELDS if record.get(name) is not None}
    if "messages" not in record:
        prompt = record["prompt"]
        if isinstance(prompt, list) or (options.ids and isinstance(prompt, str)):
            return _given_ids(prompt), options
        if not isinstance(prompt, str):
            raise HftoolError('"prompt" must be text, or a list of token ids')
        if not own and not options.templated:
            return prompt, options
        messages = chat_of_text(prompt, options).messages
    else:
        messages = record["messages"]
    for name, kind in CHAT_FIELDS.items():
        if not isinstance(own.get(name, kind()), kind):
            raise HftoolError(f'"{name}" must be {_KINDS[kind]}')
    chat = as_chat({**own, "messages": messages})
    chat = replace(chat, answer=not own.get("no_generation_prompt"))
    template = own.get("template", options.template)
    return replace(overlaid(arguments_of(options), chat), messages=chat.messages), replace(
        options, chat=True, template=template
    )


def _given_ids(prompt: str | list[Any]) -> GivenIds:
    """Return token ids given as a list (as in OpenAI's completions), or with --ids as text.

    Raises:
        HftoolError: something is not a token id.
    """
    written = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
    return GivenIds(parse_ids(written), written)


def _override(options: Options, record: Mapping[str, Any]) -> Options:
    """Return the options with the values that a record gives; null leaves an option unchanged.

    Raises:
        UsageError: a value has the wrong type or is out of the option's range.
    """
    kind: Any = type(options)
    ranges = option_ranges(kind)
    given = {
        name: ranges[name].checked(record[name])
        for name in ranges.keys() & set(RECORD_OPTIONS)
        if record.get(name) is not None
    }
    return replace(options, **given)
