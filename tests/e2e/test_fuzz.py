"""Every parser of input, fed with anything: it answers, or raises an HftoolError, and nothing else.

`make fuzz` gives each of them many more cases (FUZZ_CASES).
"""

import json
import os
import string
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hftool import config
from hftool.chat import slash_commands, storage
from hftool.chat.settings import change_setting
from hftool.errors import HftoolError
from hftool.generation.batch_file import RECORD_OPTIONS, parse_record
from hftool.generation.generate import generate
from hftool.generation.requests import make_request, request_of_record
from hftool.generation.resolution import resolve_sampling
from hftool.generation.trace import read_trace
from hftool.inputs.tables import read_table
from hftool.json_files import read_json
from hftool.models.generation_config import OWN_FIELDS, PROCESSOR_FIELDS
from hftool.models.info import _tensors
from hftool.models.language_model import LanguageModel
from hftool.models.validation import require_fitting
from hftool.options.generation import AnswerOptions, GenerateOptions, GenerationOptions
from hftool.options.inputs import InputFormat, PromptOptions, TableInputOptions
from hftool.options.ranges import option_ranges
from hftool.options.sampling import SamplingOptions
from hftool.output.run_log import RunLog
from hftool.prompting.messages import Chat, parse_chat
from hftool.server.control import DaemonOptions
from hftool.tokenization.given_ids import LARGEST_ID, parse_ids
from hftool.tokenization.vocabulary import parse_ranges
from tests.tiny_models import load_model, save_model

fuzzed = hypothesis_settings(
    max_examples=int(os.environ.get("FUZZ_CASES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

# Texts near to what a parser takes: its own signs among any others.
SIGNS = [*"0123456789-+.,:;=[]{}\"'\\/ \t\r\n#_eE", "\ufeff", "\x00", "\ud800", "\u2028"]
TEXTS = st.text(st.sampled_from(SIGNS) | st.characters() | st.sampled_from(string.ascii_letters))
BYTES = TEXTS.map(lambda text: text.encode(errors="surrogatepass")) | st.binary()
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -(2**63), 2**64, 1e308, 0, -1])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def only_ours(parse: Callable[[], Any]) -> Any:
    """What a parser gives; None where it raises an HftoolError of one line's use."""
    try:
        return parse()
    except HftoolError as error:
        assert error.message
        return None


def with_file(content: bytes, use: Callable[[Path], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input"
        path.write_bytes(content)
        return only_ours(lambda: use(path))


def near(objects: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """JSON of objects, at times with a place of it changed."""

    def spoiled(parts: tuple[Any, int, str]) -> str:
        text, place, sign = json.dumps(parts[0]), parts[1], parts[2]
        at = place % (len(text) + 1)
        return text[:at] + sign + text[at + len(sign) :]

    signs = st.sampled_from(["", "", *SIGNS[:-2]])
    return st.tuples(objects, st.integers(0, 10_000), signs).map(spoiled)


def named(names: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from([*names, "other"]), VALUES, max_size=5)


@fuzzed
@given(TEXTS)
@example("[1, 2")
@example("9" * 5000)
@example("٣")
def test_ids(text: str) -> None:
    ids = only_ours(lambda: parse_ids(text))
    assert ids is None or all(0 <= token_id <= LARGEST_ID for token_id in ids)


@fuzzed
@given(TEXTS)
@example("5-1")
@example("1-" + "9" * 5000)
def test_ranges(text: str) -> None:
    only_ours(lambda: parse_ranges(text))


@fuzzed
@given(TEXTS)
@example("9" * 5000 + "d")
@example("1.5 GiB")
def test_times_and_sizes(text: str) -> None:
    service = DaemonOptions(idle=text, memory_limit=text)
    seconds = only_ours(lambda: service.idle_seconds)
    assert seconds is None or 0 <= seconds < 2**31 / 1000  # what epoll waits at most
    only_ours(lambda: service.memory_bytes)


ROLES = st.fixed_dictionaries({"role": VALUES | st.just("user"), "content": VALUES | st.text()})


@fuzzed
@given(TEXTS | near(VALUES) | near(st.lists(ROLES, max_size=3)) | near(named(["messages"])))
@example("[" * 100_000)
@example('[{"role": "user", "content": "\\ud800"}]')
def test_messages(text: str) -> None:
    parsed = only_ours(lambda: parse_chat(text))
    for message in parsed[0].messages if parsed else []:
        json.dumps(message, ensure_ascii=False).encode()


FORMATS: list[InputFormat] = ["lines", "csv", "tsv", "jsonl"]


@fuzzed
@given(BYTES, st.sampled_from(FORMATS), st.sampled_from([None, "text", "a"]))
@example(b'a,text\n"x', "csv", None)
@example(b'{"text": "\\ud800"}', "jsonl", None)
@example(b'{"text": 1e999}', "jsonl", None)
@example(b"[" * 100_000, "jsonl", None)
@example(b"\xef\xbb\xbftext\n\x00\n", "csv", None)
def test_rows(data: bytes, name: InputFormat, column: str | None) -> None:
    def read(path: Path) -> None:
        named_column = None if name == "lines" else column
        options = TableInputOptions(files=[path], input_format=name, column=named_column)
        for row in read_table(None, options):
            row.text.encode()

    with_file(data, read)


@fuzzed
@given(near(st.dictionaries(st.sampled_from(["text", "a"]), VALUES, max_size=3)))
def test_rows_of_json(line: str) -> None:
    test_rows.hypothesis.inner_test(line.encode(), "jsonl", None)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(save_model(tmp_path_factory.mktemp("model")))


@fuzzed
@given(TEXTS | near(named([*RECORD_OPTIONS, "id", "prompt", "messages"])))
@example('{"prompt": "a", "seed": 1e999}')
@example('{"prompt": "a", "max_new_tokens": true}')
@example('{"prompt": "a", "stop": [""]}')
@example('{"prompt": "\\ud800"}')
@example('{"prompt": "' + "a" * 1000 + '"}')
def test_batch_records(model: Any, line: str) -> None:
    asked = GenerateOptions(PromptOptions(), SamplingOptions(), GenerationOptions())
    only_ours(lambda: request_of_record(model, parse_record(line), asked))


@fuzzed
@given(st.sampled_from(RECORD_OPTIONS), VALUES)
def test_a_value_in_a_batch_record(model: Any, name: str, value: Any) -> None:
    asked = GenerateOptions(PromptOptions(), SamplingOptions(), GenerationOptions())
    request = only_ours(lambda: request_of_record(model, {"prompt": "a", name: value}, asked))
    assert request is None or len(request.ids) == 1


TABLES = near(st.dictionaries(st.text(), VALUES, max_size=3)).map(
    lambda text: text.replace(":", " =").strip("{}").replace(", ", "\n")
)


@fuzzed
@given(BYTES | TABLES.map(lambda t: b"[generate]\n" + t.encode(errors="surrogatepass")))
@example(b"a = " + b"[" * 100_000)
@example(b"aliases = 3")
@example(b"[aliases]\nx = 3")
@example(b'[aliases]\n"" = ""')
def test_config(content: bytes) -> None:
    def load(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HFTOOL_CONFIG", str(path))
            config.load.cache_clear()
            config.load()

    with_file(content, load)


SLASH = st.sampled_from([f"/{name} " for name in slash_commands.COMMANDS] + ["/", "//", "/x"])


@fuzzed
@given(st.tuples(st.just("") | SLASH, TEXTS).map("".join))
@example("/set temperature")
@example("/exit now")
def test_slash_commands(message: str) -> None:
    only_ours(lambda: slash_commands.parse(message))


SETTINGS = [name for setting in option_ranges(AnswerOptions).values() for name in setting.names]


@fuzzed
@given(st.sampled_from(SETTINGS) | TEXTS, TEXTS | NUMBERS.map(lambda n: str(n)[:400]))
@example("seed", "9" * 5000)
@example("temperature", "nan")
def test_values_of_settings(name: str, text: str) -> None:
    options = only_ours(lambda: change_setting(AnswerOptions(), name, text))
    if options is not None:
        only_ours(lambda: resolve_sampling(options, {}))


@fuzzed
@given(st.sampled_from([*option_ranges(SamplingOptions), "eos_token_id", "do_sample"]), VALUES)
def test_values_of_a_generation_config(name: str, value: Any) -> None:
    only_ours(lambda: resolve_sampling(SamplingOptions(), {name: value}))


FILE_FIELDS = [*OWN_FIELDS, *PROCESSOR_FIELDS]
IDS = st.lists(st.integers(-2, 300), max_size=3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save_model(tmp_path_factory.mktemp("tiny")))


@fuzzed
@given(
    st.dictionaries(
        st.sampled_from(FILE_FIELDS),
        VALUES | NUMBERS | IDS | st.lists(IDS, max_size=2) | st.integers(0, 4),
        max_size=3,
    )
)
@example({"encoder_no_repeat_ngram_size": 2**62})
def test_fields_of_a_generation_config_in_use(tiny: LanguageModel, fields: dict[str, Any]) -> None:
    model = replace(tiny, generation_config=fields)
    options = GenerateOptions(
        PromptOptions(), SamplingOptions(seed=1), GenerationOptions(num_beams=1)
    )

    def generate_some() -> None:
        asked = replace(make_request(model, "ab", [1, 2], options), max_new_tokens=2)
        for _ in generate(model, asked):
            pass

    only_ours(generate_some)


@fuzzed
@given(BYTES | near(named(["model", "settings", "messages"])).map(str.encode))
@example(b'{"messages": [], "settings": {"seed": 1e400}}')
def test_saved_chats(content: bytes) -> None:
    kept = SimpleNamespace(options=AnswerOptions(), messages=[], model="m", arguments=Chat([]))
    kept.configure = lambda options: setattr(kept, "options", options)
    with_file(content, lambda path: storage.load(kept, path))  # type: ignore[arg-type]


HEAD = {
    **{"format": 2, "model": "m", "fingerprint": "f", "dtype": "float32", "load": {}},
    **{"ids": [1], "limit": 1, "settings": {"greedy": True, "seed": None}},
}


@fuzzed
@given(
    TEXTS,
    st.tuples(near(named([*HEAD])), near(named(["id", "drawn", "picked"]))).map("\n".join),
    st.sampled_from([*HEAD]),
    VALUES,
)
def test_traces(text: str, lines: str, name: str, value: Any) -> None:
    step = '\n{"id": 1, "drawn": 0.5}'
    for trace in (text, lines, json.dumps({**HEAD, name: value}) + step):
        only_ours(lambda trace=trace: read_trace(trace))  # type: ignore[misc]


@fuzzed
@given(BYTES | near(st.dictionaries(st.text(), VALUES)), st.binary(), st.integers(0, 1 << 20))
@example(b'{"a":' * 100_000 + b"\n", b"", 0)
@example(b"{}\n", b"\x01" * 100, 3)
def test_logs_of_runs(header: bytes | str, entries: bytes, size: int) -> None:
    def read(path: Path) -> None:
        with path.open("r+b") as file, suppress(ValueError, HftoolError):
            log = RunLog(file, {}, size)
            assert log.last_end() <= size
            assert len(list(log)) == log.entries

    header = header.encode() if isinstance(header, str) else header
    with_file(header + entries, read)
    with_file(b"{}\n" + entries, read)


@fuzzed
@given(BYTES | near(VALUES).map(str.encode))
@example(b'{"a":' * 100_000)
def test_json_files_of_a_model(content: bytes) -> None:
    assert isinstance(with_file(content, read_json), dict | None)


SHAPES = st.fixed_dictionaries({"dtype": VALUES | st.just("F32"), "shape": VALUES})


@fuzzed
@given(
    BYTES
    | near(st.dictionaries(st.text(), SHAPES | VALUES, max_size=3)).map(
        lambda text: len(text).to_bytes(8, "little") + text.encode()
    )
)
def test_safetensors_headers(content: bytes) -> None:
    def read(path: Path) -> None:
        path = path.rename(path.with_suffix(".safetensors"))
        dtypes, parameters = _tensors(path.parent)
        assert len(f"{dtypes}{parameters}") >= 0  # they can be shown

    with_file(content, read)


CONFIG = ["num_hidden_layers", "hidden_size", "vocab_size", "num_labels", "id2label", "text_config"]


@fuzzed
@given(named(CONFIG), st.integers(0, 100), st.integers(0, 10_000))
def test_model_configs(config: dict[str, Any], count: int, total: int) -> None:
    only_ours(lambda: require_fitting(config, count, total, "config.json"))
