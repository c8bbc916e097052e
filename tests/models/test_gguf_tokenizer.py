"""Tokenizers of GGUF files: the settings in the file, against sentencepiece and regex."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import regex
import sentencepiece
from tokenizers import Tokenizer as Backend

from hftool.models.check_texts import HARD_TEXTS
from hftool.models.gguf_reader import read_header
from hftool.models.gguf_tokenizer import GgufTokenizer
from hftool.models.split_patterns import PATTERNS
from tests.conftest import run
from tests.hub_server import byte_tokenizer, write_gguf_tokenizer

TEXTS = [
    *HARD_TEXTS,
    "In 2024 there were 1234567 tests, 3.14159!",
    "def f(x):\treturn x*2   # ok\n\n\n  foo_bar::baz()->x;",
    "大家好，世界 ABC你好 1月2日 안녕하세요 ひらがなカタカナ ㄅㄆ",
    "I'M you'LL WE'RE don't “quotes”… ¡Hola! Привет, ΜΈΓΑ",
    "trailing   ",
]
SPACES = {"gemma4", "granite-embed-multi-311m", "sarvam-moe"}


def built(metadata: Mapping[str, Any]) -> Backend:
    backend: Backend = GgufTokenizer(metadata).build()
    return backend


def byte_level(pre: str | None, **more: Any) -> dict[str, Any]:
    """The metadata of a byte-level tokenizer: a token for each byte, and three longer ones."""
    tokens = sorted(byte_tokenizer().get_vocab(with_added_tokens=False).items(), key=lambda x: x[1])
    texts = [*(token for token, _ in tokens), "he", "the", "<s>", "<think>"]
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [1] * (len(texts) - 2) + [3, 4],
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": texts.index("<s>"),
    }
    return {k: v for k, v in metadata.items() if v is not None} | {
        f"tokenizer.ggml.{name}": value for name, value in more.items()
    }


@pytest.mark.parametrize("pre", sorted(PATTERNS))
def test_texts_are_split_as_the_pattern_says(pre: str) -> None:
    splitter = built(byte_level(pre)).pre_tokenizer
    assert splitter is not None
    for text in TEXTS:
        spans = [(0, len(text))]
        for pattern in PATTERNS[pre]:
            spans = [
                part for span in spans for part in split(pattern.replace("&&", "--"), text, *span)
            ]
        # A span of tokenizers is that of the characters; each is a piece.
        assert [span for _, span in splitter.pre_tokenize_str(text)] == spans, text


def split(pattern: str, text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The spans of matches and of what is between them, in a part of a text."""
    part = text[start:end]
    flags = regex.V1 if "--" in pattern else regex.V0
    pattern = pattern.replace("--[^\\p{Han}]", "--\\p{Han}")
    spans, place = [], 0
    for match in regex.finditer(pattern, part, flags):
        if place < match.start():
            spans.append((start + place, start + match.start()))
        if match.end() > match.start():
            spans.append((start + match.start(), start + match.end()))
        place = match.end()
    if place < len(part):
        spans.append((start + place, end))
    return spans


@pytest.mark.parametrize(
    ("pre", "whole"), [("llama-bpe", True), ("gpt-2", False), ("tekken", True)]
)
def test_a_whole_piece_is_looked_up_before_merging_for_some(pre: str, whole: bool) -> None:
    backend = built(byte_level(pre))
    assert backend.encode("the", add_special_tokens=False).tokens == (
        ["the"] if whole else ["t", "he"]
    )


def test_tokens_around_a_text() -> None:
    def ids(pre: str, **settings: Any) -> list[str]:
        tokens: list[str] = built(byte_level(pre, eos_token_id=5, **settings)).encode("h").tokens
        return tokens

    last = byte_level("qwen2")["tokenizer.ggml.tokens"][5]
    assert ids("qwen2") == ids("llama-bpe", add_bos_token=False) == ["h"]
    assert ids("llama-bpe") == ids("qwen2", add_bos_token=True) == ["<s>", "h"]
    assert ids("llama-bpe", add_eos_token=True) == ["<s>", "h", last]
    assert ids("qwen2", add_eos_token=True) == ["h", last]


def test_control_tokens_are_special_and_those_of_users_are_not() -> None:
    added = built(byte_level("qwen2")).get_added_tokens_decoder()
    assert {t.content: t.special for t in added.values()} == {"<s>": True, "<think>": False}


@pytest.mark.parametrize(
    ("metadata", "cause"),
    [
        (byte_level("made-up"), "hftool does not know how its tokenizer splits a text: 'made-up'"),
        (byte_level(None), "it does not say how its tokenizer splits a text"),
        (byte_level("qwen2", magic=3), "the setting tokenizer.ggml.magic, which hftool does not"),
        ({**byte_level("qwen2"), "tokenizer.ggml.model": "rwkv"}, "of the kind 'rwkv'"),
        ({"general.architecture": "llama"}, "it has no tokenizer"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, metadata: dict[str, Any], cause: str) -> None:
    path = tmp_path / "m.gguf"
    write_gguf_tokenizer(path, metadata)
    assert read_header(path).metadata == {"general.architecture": "llama", **metadata}
    result = run("encode", "hello", "-m", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert cause in result.stderr


def test_a_gpt2_that_does_not_say_how_it_splits() -> None:
    metadata = {**byte_level(None), "general.architecture": "gpt2"}
    assert GgufTokenizer(metadata).pre == "gpt-2"


def test_templates_by_name_and_ends_of_text() -> None:
    metadata = byte_level("qwen2", eos_token_id=3, eot_token_id=7)
    metadata["tokenizer.chat_template"] = "plain"
    assert GgufTokenizer(metadata).config()["chat_template"] == "plain"
    metadata["tokenizer.chat_template.tool_use"] = "tools"
    assert GgufTokenizer(metadata).config()["chat_template"] == [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "tools"},
    ]
    tokens = metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "<|im_end|>"]
    kinds = metadata["tokenizer.ggml.token_type"]
    metadata["tokenizer.ggml.token_type"] = [*kinds, 3]
    assert GgufTokenizer(metadata).end_ids() == [3, 7, len(tokens) - 1]
    metadata["tokenizer.ggml.token_type"] = [*kinds, 1]  # a text that only looks like one
    assert GgufTokenizer(metadata).end_ids() == [3, 7]


# SentencePiece's kinds


def trained(texts: list[str], **settings: Any) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def sentencepiece_metadata(
    processor: sentencepiece.SentencePieceProcessor, kind: str, **settings: Any
) -> dict[str, Any]:
    """What llama.cpp's converter writes of a SentencePiece model."""
    ids = range(len(processor))

    def type_of(i: int) -> int:
        if processor.is_byte(i):
            return 6
        return 2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 1

    metadata = {
        "model": kind,
        "tokens": [processor.id_to_piece(i) for i in ids],
        "scores": [processor.get_score(i) for i in ids],
        "token_type": [type_of(i) for i in ids],
        "bos_token_id": processor.bos_id(),
        "eos_token_id": processor.eos_id(),
        "unknown_token_id": processor.unk_id(),
        **settings,
    }
    return {f"tokenizer.ggml.{name}": v for name, v in metadata.items() if v != -1}


@pytest.mark.parametrize("prefix", [True, False])
def test_tokens_are_those_of_sentencepiece(prefix: bool) -> None:
    processor = trained(
        TEXTS[:-1],
        model_type="bpe",
        vocab_size=600,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        allow_whitespace_only_pieces=True,
    )
    settings = {} if prefix else {"add_space_prefix": False}
    backend = built(sentencepiece_metadata(processor, "llama", **settings))
    for text in [*TEXTS, " two", "  two  spaces "]:
        ids = processor.encode(text)
        assert backend.encode(text, add_special_tokens=False).ids == ids, text
        assert backend.decode(ids) == processor.decode(ids)
        assert backend.encode(text).ids == [processor.bos_id(), *ids]
