"""Texts with parts that have no token, where the vocabulary has no usable unknown token either."""

import json
from pathlib import Path

import jsonschema
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from hftool.tokenization.offsets import OffsetCorrection
from hftool.tokenization.tokenizer import Tokenizer
from hftool.tokenization.unknown import NoTokenError, UnknownParts
from tests.conftest import run
from tests.tokenization.test_tokenizer import byte_level, saved

SCHEMAS = Path(__file__).parents[2] / "docs/schemas"
LETTERS = {"a": 0, "b": 1, "##b": 2, "ab": 3}
MODELS = {
    "wordlevel": models.WordLevel(LETTERS, unk_token="<unk>"),
    "wordpiece": models.WordPiece(LETTERS, unk_token="[UNK]"),
    "bpe": models.BPE(LETTERS, [], unk_token="<unk>"),
    "unigram": models.Unigram([("a", -1.0), ("b", -1.0), ("ab", -1.5)], None),
}


def failing(kind: str, folder: Path) -> Path:
    """The folder of a tokenizer that has tokens for "a" and "b", and fails at other letters."""
    backend = tokenizers.Tokenizer(MODELS[kind])
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<sep>"])
    return saved(backend, folder)


@pytest.mark.parametrize("kind", MODELS)
def test_the_error_names_the_character_and_its_place(kind: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer(failing(kind, tmp_path), "small")
    assert tokenizer.encode("ab <sep> A", special=False).tokens[-2:] == ["<sep>", "a"]
    for text, place in (
        ("ab <sep> É a", "“É” (U+00C9) at column 10"),
        ("ab\n  É", "“É” (U+00C9) at line 2, column 3"),
        ("a\n\ny", "“y” (U+0079) at line 3, column 1"),
        ("e\u0301", "“e\u0301” at column 1"),
    ):
        with pytest.raises(NoTokenError) as caught:
            tokenizer.encode(text, special=False)
        assert caught.value.message == f"small has no token for {place}"
        with pytest.raises(NoTokenError):
            tokenizer.encode_batch(["a", text, "b"], special=False)
        with pytest.raises(NoTokenError):
            tokenizer.count_batch(["a", text, "b"], special=False)
        with pytest.raises(NoTokenError):
            tokenizer.encode_windows(["a", text, "b"], 8, 0.5)
        with pytest.raises(NoTokenError):
            tokenizer.encode_pairs([("a", "b"), ("a", text)], 8)


@pytest.mark.parametrize("options", [(), ("--count",), ("--roundtrip",), ("--compare", "smollm2")])
def test_encode_of_one_text_is_an_error(options: tuple[str, ...], tmp_path: Path) -> None:
    folder = str(failing("unigram", tmp_path))
    result = run("encode", "ab é", "-m", folder, *options)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    message = f"Error: {folder} has no token for “é” (U+00E9) at column 4\nHint: "
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 2


def test_the_other_lines_go_on(tmp_path: Path) -> None:
    folder = str(failing("wordlevel", tmp_path))
    stdin = "ab a\na x\nb\ny\n"
    result = run("encode", "-m", folder, "--lines", stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "3 0\n\n1\n\n")
    warned, error, hint = result.stderr.rsplit("\n", 3)[:3]
    assert warned.split("\n") == [
        f"Warning: line 2: {folder} has no token for “x” (U+0078) at column 3",
        f"Warning: line 4: {folder} has no token for “y” (U+0079) at column 1",
    ]
    assert error == "Error: 2 texts failed" and hint.startswith("Hint: ")
    result = run("encode", "-m", folder, "--lines", "--count", "--format", "jsonl", stdin=stdin)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert records[0] == {"text": "ab a", "count": 2}
    error = f"{folder} has no token for “x” (U+0078) at column 3"
    assert records[1] == {"text": "a x", "error": error}
    schema = json.loads((SCHEMAS / "failed-text.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(records[1])
    assert len(records) == 4 and result.exit_code == 1
    result = run("encode", "-m", folder, "--lines", "--count", "--format", "csv", stdin=stdin)
    assert result.stdout == "count,text\n2,ab a\n,a x\n1,b\n,y\n"


def test_lines_go_on_in_every_mode_and_format(tmp_path: Path) -> None:
    folder = str(failing("wordpiece", tmp_path))
    for mode in ((), ("--count",), ("--roundtrip",), ("--compare", "smollm2")):
        for form in ("text", "table", "json", "csv", "tsv"):
            result = run(
                "encode", "-m", folder, "--lines", *mode, "--format", form, stdin="é\nab\n"
            )
            assert result.exit_code == 1, (mode, form)
            assert isinstance(result.exception, SystemExit)
            assert "Error: 1 text failed\n" in result.stderr
    picture = tmp_path / "x.html"
    result = run("encode", "-m", folder, "--lines", "--save", str(picture), stdin="é\nab\n")
    assert result.exit_code == 1 and ">ab</span>" in picture.read_text()


def test_what_bpe_leaves_out_is_reported(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = str(saved(backend, tmp_path))
    result = run("encode", "-m", folder, "a\nxbx")
    assert (result.exit_code, result.stdout) == (0, "0 1\n")
    assert result.stderr == (
        f"Warning: {folder} has no token for “x” (U+0078) at line 2, column 1: "
        "left out, like 1 more after it\n"
    )
    assert run("encode", "-m", folder, "a b").stderr == ""
    assert run("encode", "-m", folder, "--count", "ay").stderr.endswith("column 2: left out\n")


def test_bytes_that_a_vocabulary_lacks_are_reported(tmp_path: Path) -> None:
    state = json.loads((byte_level(tmp_path) / "tokenizer.json").read_text())
    del state["model"]["vocab"]["ñ"]  # the byte F1, which begins characters from U+40000
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    result = run("encode", "-m", str(tmp_path), "大é \x00\x07")
    assert result.stderr == ""
    result = run("encode", "-m", str(tmp_path), "大\U00050000")
    assert "no token for “\U00050000” (U+50000) at column 2: left out" in result.stderr


def test_smollm2_leaves_out_a_control_character(tokenizer: Tokenizer) -> None:
    result = run("encode", "a\x04b")
    assert result.stdout == " ".join(map(str, tokenizer.backend.encode("a\x04b").ids)) + "\n"
    assert "“\\x04” (U+0004) at column 2: left out" in result.stderr


def test_only_bytes_without_a_token_are_looked_for(tokenizer: Tokenizer) -> None:
    unknown = UnknownParts(tokenizer.backend, OffsetCorrection(tokenizer.backend))
    assert not unknown.may_leave_out("Be naïve, 大家好!\n")
    assert unknown.may_leave_out("a\x04b")
