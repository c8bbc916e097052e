"""Added and special tokens: from every file that can have them, as AutoTokenizer reads them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from hftool.errors import HftoolError
from hftool.tokenization.tokenizer import Tokenizer
from tests.conftest import run
from tests.hub_server import byte_tokenizer

TEXTS = ["<a>", "<b>", "<c>", "<d>", "<s>", "</s>", "the", "é"]
ROLES = ["bos_token", "eos_token", "unk_token", "pad_token", "mask_token", "image_token"]
PROBES = ["x <a> y<b>z  <c>  <d>é<s>", "<A> the  </s>the <b> ", "<image> <d><c> <extra>"]


def tokenizer_json(added: list[dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(byte_tokenizer().to_str())
    return content | {"added_tokens": added}


def as_written(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def token(draw: random.Random, text: str, **more: Any) -> dict[str, Any]:
    flags = {flag: draw.random() < 0.3 for flag in ("lstrip", "rstrip", "single_word")}
    return {"content": text, **flags, "normalized": draw.random() < 0.5, **more}


def random_files(draw: random.Random) -> dict[str, Any]:
    """Files with tokens in a random choice of the places that they can have."""
    size = byte_tokenizer().get_vocab_size(with_added_tokens=False)
    in_json = draw.sample(TEXTS[:6], draw.randrange(4))
    added = [
        token(draw, text, id=size + i, special=draw.random() < 0.6)
        for i, text in enumerate(in_json)
    ]

    def one() -> Any:
        text = draw.choice([*TEXTS, "<image>"])
        written = token(draw, text, __type="AddedToken", special=True)
        return text if draw.random() < 0.5 else written

    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {role: one() for role in draw.sample(ROLES, draw.randrange(4))}
    if isinstance(config.get("image_token"), dict):  # transformers 5.23 ignores these
        del config["image_token"]
    if draw.random() < 0.5:
        extra = [one() for _ in range(draw.randrange(4))]
        config[draw.choice(["extra_special_tokens", "additional_special_tokens"])] = extra
    elif draw.random() < 0.3:
        config["extra_special_tokens"] = {"video_token": "<video>", "image_token": "<image>"}
    files: dict[str, Any] = {"tokenizer_config.json": config}
    rest = [text for text in TEXTS[:6] if text not in in_json]
    later = {text: size + len(in_json) + i for i, text in enumerate(rest[: draw.randrange(4)])}
    if draw.random() < 0.4:
        config["added_tokens_decoder"] = {
            str(i): token(draw, text, special=draw.random() < 0.6)
            for text, i in [*later.items(), *((t["content"], t["id"]) for t in added)]
        }
    elif draw.random() < 0.6:
        files["added_tokens.json"] = later
    if draw.random() < 0.5:
        files["special_tokens_map.json"] = {
            role: draw.choice([draw.choice(TEXTS), token(draw, draw.choice(TEXTS))])
            for role in draw.sample(ROLES[:5], draw.randrange(1, 4))
        }
    files["tokenizer.json"] = tokenizer_json(added)
    return files


@pytest.mark.parametrize("seed", range(40))
def test_tokens_from_any_place_are_those_of_transformers(tmp_path: Path, seed: int) -> None:
    for i in range(3):
        folder = as_written(tmp_path / str(i), random_files(random.Random(3 * seed + i)))
        theirs = AutoTokenizer.from_pretrained(folder)
        ours = Tokenizer(folder, "ours")
        assert {i: repr(t) for i, t in ours.added_tokens.items()} == {
            i: repr(t) for i, t in theirs.added_tokens_decoder.items()
        }
        named = {r: t for r, t in theirs.special_tokens_map.items() if isinstance(t, str)}
        assert ours.special_tokens == named
        for text in PROBES:
            ids = theirs.encode(text, add_special_tokens=False)
            assert ours.encode(text, special=False).ids == ids
            for skip in (True, False):
                # transformers takes the é of an added token for the byte E9.
                expected = str(theirs.decode(ids, skip_special_tokens=skip)).replace("\ufffd", "é")
                assert ours.decode(ids, skip) == expected


def test_an_id_that_the_vocabulary_does_not_reach_is_reported(
    tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    late = {"content": "<late>", "special": True}
    config = {"added_tokens_decoder": {"999": late}}
    folder = as_written(
        tmp_path, {"tokenizer.json": tokenizer_json([]), "tokenizer_config.json": config}
    )
    tokenizer = Tokenizer(folder, "gap")
    size = byte_tokenizer().get_vocab_size(with_added_tokens=False)
    assert tokenizer.encode("<late>", special=False).ids == [size]
    assert "gap: its files give <late> the id 999" in notes.text


def test_dropout_is_off(tmp_path: Path) -> None:
    content = tokenizer_json([])
    plain = Backend.from_str(json.dumps(content)).encode("the other thing").ids
    content["model"]["dropout"] = 1.0
    folder = as_written(tmp_path, {"tokenizer.json": content})
    assert Tokenizer(folder, "dropout").encode("the other thing", special=False).ids == plain


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 9085698\n"


@pytest.mark.parametrize(
    ("content", "cause", "hint"),
    [
        (LFS, "it is only a Git LFS pointer to the file", "run `git lfs pull` in its folder"),
        ("<!DOCTYPE html><html>404</html>", "it is a web page, not the file", "download the file"),
        ('{"model": {"type": "BPE", "vo', "it is cut off (EOF while parsing", ""),
    ],
)
def test_files_that_are_not_a_tokenizer(
    tmp_path: Path, content: str, cause: str, hint: str
) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    result = run("encode", "x", "-m", str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"cannot read the tokenizer {tmp_path}/tokenizer.json: {cause}" in result.stderr
    assert hint in result.stderr
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json([])))
    (tmp_path / "tokenizer_config.json").write_text(content)
    assert "cannot read" in run("encode", "x", "-m", str(tmp_path)).stderr


def test_the_file_with_a_wrong_id_is_named(tmp_path: Path) -> None:
    files = {"tokenizer.json": tokenizer_json([]), "added_tokens.json": {"<new>": "9"}}
    with pytest.raises(HftoolError, match=r"added_tokens\.json: the id of <new> is no number"):
        Tokenizer(as_written(tmp_path, files), "wrong")


def test_a_part_that_only_newer_versions_know_is_named(tmp_path: Path) -> None:
    content = tokenizer_json([])
    new = {"type": "SplitEverySyllable"}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [new]}
    folder = as_written(tmp_path, {"tokenizer.json": content})
    result = run("encode", "x", "-m", str(folder))
    assert "does not know its pre_tokenizer “SplitEverySyllable”" in result.stderr
    assert "pip install -U tokenizers transformers" in result.stderr
