"""Tokenizers without tokenizer.json, against sentencepiece, tiktoken and AutoTokenizer."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
from transformers import AutoTokenizer

from hftool.models.check_texts import HARD_TEXTS
from hftool.models.converted_copies import tokenizer_conversion
from hftool.models.split_patterns import CL100K, LLAMA3, TEKKEN
from hftool.models.tokenizer_conversion import convert_tokenizer
from hftool.tokenization.sentencepiece_model import SENTENCEPIECE
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "Hello world, this is a test of tokens and spaces.",
    "naïve café ﬁne ½ Ｆｕｌｌ width; numbers 123 and 456",
    "Paris is the capital of France <sep> yes",
]
TEXTS = [
    *HARD_TEXTS,
    *("a<sep>b <sep> c", " Hello", "  Hello  world ", "x  <sep>  y", "<sep>", "Hello <sep>"),
]


def sentencepiece_folder(
    folder: Path, *, kind: str, classes: tuple[str, str] | None, **settings: Any
) -> sentencepiece.SentencePieceProcessor:
    """A folder with tokenizer.model, and its processor.

    `kind` is that of the model, `classes` the class of the tokenizer and the type of the model.
    """
    folder.mkdir(parents=True)
    path = folder / "tokenizer.model"
    with path.open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 20),
            model_writer=model,
            model_type=kind,
            hard_vocab_limit=False,
            minloglevel=2,
            **settings,
        )
    if classes:
        config = {"tokenizer_class": classes[0], "unk_token": "<unk>", "eos_token": "</s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "config.json").write_text(json.dumps({"model_type": classes[1]}))
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def converted(folder: Path) -> Tokenizer:
    target = folder.parent / f"{folder.name}-converted"
    target.mkdir()
    convert_tokenizer(folder, target)
    return Tokenizer(target, folder.name)


LLAMA: dict[str, Any] = {
    "kind": "bpe",
    "classes": ("LlamaTokenizer", "llama"),
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "vocab_size": 500,
}
KINDS: dict[str, dict[str, Any]] = {
    "user-defined symbols": {**LLAMA, "user_defined_symbols": ["<sep>", "  "]},
    "unigram": {**LLAMA, "kind": "unigram", "vocab_size": 400},
    "no dummy prefix": {**LLAMA, "add_dummy_prefix": False},
    "normalized": {
        **LLAMA,
        "normalization_rule_name": "nmt_nfkc",
        "remove_extra_whitespaces": True,
    },
    "case folded": {**LLAMA, "normalization_rule_name": "nmt_nfkc_cf"},
    "spaces as suffix": {**LLAMA, "treat_whitespace_as_suffix": True},
    "without a class": {**LLAMA, "classes": None, "add_dummy_prefix": False},
    "t5": {
        "kind": "unigram",
        "classes": ("T5Tokenizer", "t5"),
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "vocab_size": 120},
        "user_defined_symbols": ["<sep>"],
    },
    "xlm-roberta": {
        "kind": "unigram",
        "classes": ("XLMRobertaTokenizer", "xlm-roberta"),
        "vocab_size": 120,
    },
}


@pytest.mark.parametrize("name", KINDS)
def test_the_tokens_are_those_of_sentencepiece(tmp_path: Path, name: str) -> None:
    processor = sentencepiece_folder(tmp_path / "old", **KINDS[name])
    tokenizer = converted(tmp_path / "old")
    for text in TEXTS:
        theirs = processor.encode(text)
        ids = tokenizer.encode(text, special=False).ids
        if name == "xlm-roberta":  # its ids are others
            tokens = [tokenizer.backend.id_to_token(i) for i in ids]
            assert tokens == [processor.id_to_piece(i) for i in theirs], text
            continue
        assert ids == theirs, text
        if processor.unk_id() not in theirs:
            assert tokenizer.decode(ids) == processor.decode(theirs), text


def test_spans_and_special_tokens_with_sentencepiece_itself(tmp_path: Path) -> None:
    sentencepiece_folder(tmp_path / "old", **KINDS["user-defined symbols"])
    tokenizer = converted(tmp_path / "old")
    assert (tokenizer.folder / SENTENCEPIECE).is_file()
    text = "  Hello ½ö日<sep></s> a"
    encoding = tokenizer.encode(text, special=False)
    shown = [text[slice(*span)] for span in tokenizer.spans(text, encoding)]
    assert [s for t, s in zip(encoding.tokens, shown, strict=True) if t.startswith("<")] == [
        *["ö"] * 2,
        *["日"] * 3,
        "<sep>",
        "</s>",
    ]
    assert [tokenizer.kind(i) for i in encoding.ids[-3:]] == ["normal", "special", "normal"]
    assert tokenizer.decode(encoding.ids, skip_special=True) == "  Hello ½ö日<sep> a"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_spans_of_characters_that_sentencepiece_has_no_bytes_for(tmp_path: Path, kind: str) -> None:
    settings = {**LLAMA, "kind": kind, "byte_fallback": False, "vocab_size": 120}
    processor = sentencepiece_folder(tmp_path / "old", **settings)
    tokenizer = converted(tmp_path / "old")
    text = "Hello 日本 Ω"
    encoding = tokenizer.encode(text, special=False)
    assert encoding.ids == processor.encode(text)
    assert encoding.ids.count(processor.unk_id()) == 2
    spans = tokenizer.spans(text, encoding)
    unknown = [span for span, i in zip(spans, encoding.ids, strict=True) if i == processor.unk_id()]
    assert [text[start:end] for start, end in unknown] == ["日本", "Ω"]


def test_a_special_token_stays_one_although_the_model_has_it_as_a_symbol(tmp_path: Path) -> None:
    sentencepiece_folder(tmp_path / "old", **KINDS["user-defined symbols"])
    path = tmp_path / "old" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": "<sep>"}))
    tokenizer = converted(tmp_path / "old")
    assert tokenizer.special_tokens["eos_token"] == "<sep>"
    assert tokenizer.kind(tokenizer.encode("a<sep>b", special=False).ids[1]) == "special"


def test_the_command_uses_sentencepiece_too(tmp_path: Path) -> None:
    processor = sentencepiece_folder(tmp_path / "old", **KINDS["no dummy prefix"])
    lines = "Hello world\n  two\n"
    result = run("encode", "--lines", "-m", str(tmp_path / "old"), stdin=lines)
    assert [[int(i) for i in line.split()] for line in result.stdout.splitlines()] == [
        processor.encode(line) for line in lines.splitlines()
    ]
    assert run("encode", "Hello", "--roundtrip", "-m", str(tmp_path / "old")).exit_code == 0


# Other files


def tiktoken_file(path: Path, pieces: Sequence[bytes] = ()) -> dict[bytes, int]:
    """A file of tiktoken's format with all bytes and some more tokens; its ranks."""
    ranks = {bytes([i]): i for i in range(256)}
    ranks |= {piece: 256 + i for i, piece in enumerate(pieces)}
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{base64.b64encode(piece).decode()} {rank}\n" for piece, rank in ranks.items())
    path.write_text("".join(lines))
    return ranks


@pytest.mark.parametrize("name", ["tokenizer.model", "tiktoken.model"])
def test_a_file_of_tiktokens_format(tmp_path: Path, name: str) -> None:
    ranks = tiktoken_file(tmp_path / "old" / name, [b"he", b"hel", b"lo", b" w", b"12"])
    theirs = tiktoken.Encoding("x", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={})
    tokenizer = converted(tmp_path / "old")
    for text in TEXTS:
        assert tokenizer.encode(text, special=False).ids == theirs.encode(text), text
        assert tokenizer.decode(theirs.encode(text)) == text


@pytest.mark.slow
def test_the_number_of_tokens_tells_how_gpt4_splits(tmp_path: Path) -> None:
    more = [b"%05d" % i for i in range(100256 - 256 - 1)]
    ranks = tiktoken_file(tmp_path / "old" / "cl100k_base.tiktoken", [*more, b"\n "])
    special = {"<|endoftext|>": 100257, "<|endofprompt|>": 100276}
    theirs = tiktoken.Encoding("x", pat_str=CL100K, mergeable_ranks=ranks, special_tokens=special)
    tokenizer = converted(tmp_path / "old")
    for text in (*TEXTS, "a \n \n ", "x<|endoftext|>y<|endofprompt|>"):
        ids = theirs.encode(text, allowed_special="all")
        assert tokenizer.encode(text, special=False).ids == ids, text


def test_a_tiktoken_file_of_no_known_kind(tmp_path: Path) -> None:
    tiktoken_file(tmp_path / "old" / "own.tiktoken")
    with pytest.raises(ValueError, match="how it splits a text is not in own"):
        converted(tmp_path / "old")


def test_mistrals_tekken_json(tmp_path: Path) -> None:
    pieces = [*(bytes([i]) for i in range(256)), b"he", b"hel", b"lo", b"hello"]
    vocabulary = [
        {"rank": i, "token_bytes": base64.b64encode(p).decode(), "token_str": None}
        for i, p in enumerate(pieces)
    ]
    config = {"pattern": TEKKEN, "num_vocab_tokens": len(pieces), "version": "v3"}
    config |= {"default_vocab_size": len(pieces) + 5, "default_num_special_tokens": 5}
    special = [
        {"rank": i, "token_str": token, "is_control": True}
        for i, token in enumerate(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    ]
    folder = tmp_path / "old"
    folder.mkdir()
    content = {"config": config, "vocab": vocabulary, "special_tokens": special}
    (folder / "tekken.json").write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral"}))
    tokenizer = converted(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = tokenizer.encode(text, special=False).ids
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("hello", special=False).ids == [5 + 259]


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({"vocab.txt": "[UNK]\nhello\n"}, "which kind of tokenizer they are"),
        (
            {
                "qwen.tiktoken": "AA== 0\n",
                "config.json": '{"model_type": "qwen"}',
                "tokenizer_config.json": json.dumps(
                    {"auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]}}
                ),
            },
            "its tokenizer is code of the repository (tokenization_qwen.QWenTokenizer)",
        ),
        (
            {"tokenizer.model": "version https://git-lfs.github.com/spec/v1\noid x"},
            "tokenizer.model: it is only a Git LFS pointer",
        ),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, files: Mapping[str, str], cause: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    result = run("encode", "x", "-m", str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert cause in result.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", '{"tokenizer_class": "LlamaTokenizer", "eos_token": "<unk>"}'),
        ("chat_template.jinja", "{{ messages[0].content }}!"),
        ("added_tokens.json", '{"<|new|>": 500}'),
        ("special_tokens_map.json", '{"pad_token": "<|new|>"}'),
        ("additional_chat_templates/rag.jinja", "{{ messages[0].content }}!"),
    ],
)
def test_a_change_of_any_file_is_noticed(tmp_path: Path, name: str, content: str) -> None:
    sentencepiece_folder(tmp_path / "old", **LLAMA)
    before = tokenizer_conversion(tmp_path / "old").folder
    (tmp_path / "old" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "old" / name).write_text(content)
    assert tokenizer_conversion(tmp_path / "old").folder != before


def bertweet(folder: Path, **settings: Any) -> Path:
    """A tokenizer that transformers has only as Python code."""
    folder.mkdir()
    merges = ("h e", "he l", "hel lo</w>", "l o</w>", "c a", "ca t</w>")
    codes = "".join(f"{merge} {9 - i}\n" for i, merge in enumerate(merges))
    (folder / "bpe.codes").write_text(codes)
    letters = "abcdefghilmnopqrstuwxyz"
    words = ["hello", "lo", "cat", "he@@", "hel@@", "ca@@", *letters, *(f"{c}@@" for c in letters)]
    (folder / "vocab.txt").write_text("".join(f"{word} 1\n" for word in words))
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta", "vocab_size": 60}))
    config = {"tokenizer_class": "BertweetTokenizer", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_a_tokenizer_of_python_code(tmp_path: Path) -> None:
    folder = bertweet(tmp_path / "old")
    theirs = AutoTokenizer.from_pretrained(folder)
    tokenizer = converted(folder)
    for text in (*HARD_TEXTS, "hello cat", "  a hello<mask> b </s>", "hellocat  lo"):
        for special in (False, True):
            ids = theirs.encode(text, add_special_tokens=special)
            assert tokenizer.encode(text, special=special).ids == ids, text
        if theirs.unk_token_id not in ids:  # a part of a word that is the last stays one
            assert tokenizer.decode(ids, skip_special=True) == theirs.decode(
                ids, skip_special_tokens=True
            )
    encoding = tokenizer.encode("a hello cats", special=False)
    assert encoding.offsets == [(0, 1), (2, 7), (8, 10), (10, 11), (11, 12)]
    pair = tokenizer.backend.encode("a", "b").ids
    assert pair == theirs.encode("a", "b")


def test_a_tokenizer_of_python_code_that_needs_a_package(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its tokenizer needs the package emoji"):
        converted(bertweet(tmp_path / "old", normalization=True))


def translator(folder: Path, kind: str) -> Path:
    """A tokenizer with SentencePiece models whose ids are those of a vocab.json."""
    classes = (f"{kind}Tokenizer", kind)
    processor = sentencepiece_folder(folder, kind="unigram", classes=classes, vocab_size=120)
    model = (folder / "tokenizer.model").rename(folder / "sentencepiece.bpe.model")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if kind == "Marian":
        (folder / "target.spm").write_bytes(model.read_bytes())
        model.rename(folder / "source.spm")
        special = ["</s>", "<unk>", ">>fra<<", "<pad>"]
    pieces = [processor.id_to_piece(i) for i in range(3, len(processor))]
    vocabulary = {piece: i for i, piece in enumerate([*special, *reversed(pieces)])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return folder


@pytest.mark.filterwarnings("ignore:Recommended")
@pytest.mark.parametrize(
    ("kind", "language"), [("Marian", ">>fra<<"), ("M2M100", "__fr__"), ("ByT5", "<extra_id_7>")]
)
def test_tokenizers_of_python_code_for_encoder_decoders(
    tmp_path: Path, kind: str, language: str
) -> None:
    folder = tmp_path / "old"
    if kind == "ByT5":
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
        config = {"tokenizer_class": "ByT5Tokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    else:
        translator(folder, kind)
    theirs = AutoTokenizer.from_pretrained(folder)
    tokenizer = converted(folder)
    for text in (*HARD_TEXTS, "The fox: yes", "ends </s> and goes on", f"{language} The fox"):
        for special in (False, True):
            ids = theirs.encode(text, add_special_tokens=special)
            assert tokenizer.encode(text, special=special).ids == ids, text
        if theirs.unk_token_id not in ids:
            assert tokenizer.decode(ids, skip_special=True) == theirs.decode(
                ids, skip_special_tokens=True
            )
    ids = [tokenizer.backend.token_to_id(language)]
    assert ids == theirs.convert_tokens_to_ids([language])
