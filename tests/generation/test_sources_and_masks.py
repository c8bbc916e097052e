"""Encoder-decoders, whose prompt is the source; and masked models, which fill in masks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BartConfig, BertConfig

from tests.conftest import run
from tests.tiny_models import CLS, END, PAD, SEP, VOCABULARY, save_tokenizer

SOURCES = ("The sun is up", "x", "A text of some length, to be translated.")
MASKED = "A [MASK] of b[MASK]."


def add_tokens(folder: Path, *tokens: str) -> list[int]:
    """Give a folder's tokenizer further special tokens, and return their ids."""
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    first = max(token["id"] for token in data["added_tokens"]) + 1
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for token_id, token in enumerate(tokens, first):
        data["added_tokens"].append({"id": token_id, "content": token, "special": True, **flags})
    path.write_text(json.dumps(data))
    return list(range(first, first + len(tokens)))


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BartForConditionalGeneration

    folder = tmp_path_factory.mktemp("bart")
    config = BartConfig(
        vocab_size=VOCABULARY + 4,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        init_std=0.5,
        bos_token_id=CLS,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=SEP,
        forced_eos_token_id=None,
    )
    torch.manual_seed(2)
    make: Any = BartForConditionalGeneration
    make(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def reference(folder: Path, source: str, *begin: int, **settings: Any) -> list[int]:
    """The ids that transformers' own `generate` gives a source."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    auto: Any = AutoModelForSeq2SeqLM
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(source, return_tensors="pt", return_token_type_ids=False)
    if begin:
        settings["decoder_input_ids"] = torch.tensor([begin])
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False, **settings)
    return [int(i) for i in output[0, max(1, len(begin)) :]]


def records(*arguments: str) -> list[dict[str, Any]]:
    result = run(*arguments, "--dtype", "float32", "--format", "jsonl")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def ids_of(record: dict[str, Any]) -> list[int]:
    return [token["id"] for token in record["logprobs"]]


GREEDY = ("-n", "8", "--greedy", "--logprobs")


def test_source_of_an_encoder_decoder(bart: Path, tmp_path: Path) -> None:
    expected = [reference(bart, source) for source in SOURCES]
    assert len({tuple(ids) for ids in expected}) == 3
    alone = [records("generate", s, "-m", str(bart), *GREEDY)[0] for s in SOURCES]
    assert [ids_of(record) for record in alone] == expected
    assert [r["usage"]["prompt_tokens"] for r in alone] == [len(s) for s in SOURCES]
    batch = tmp_path / "batch.jsonl"
    batch.write_text("".join(json.dumps({"prompt": s}) + "\n" for s in SOURCES))
    together = records("generate", "--batch", str(batch), "-m", str(bart), *GREEDY)
    assert [ids_of(record) for record in together] == expected
    steps = records("sample", SOURCES[0], "-m", str(bart), "--steps", "8", "--greedy")
    assert [step["id"] for step in steps] == expected[0]
    [best] = records("topk", SOURCES[0], "-m", str(bart), "-k", "1")
    assert best["id"] == expected[0][0]


def test_beams_of_an_encoder_decoder(bart: Path) -> None:
    expected = reference(bart, SOURCES[0], num_beams=3)
    [record] = records("generate", SOURCES[0], "-m", str(bart), *GREEDY, "--num-beams", "3")
    assert ids_of(record) == expected[: len(ids_of(record))]


def test_a_generation_config_of_an_encoder_decoder(bart: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bart"
    shutil.copytree(bart, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    source = "aaaaaaaaaaaa b"

    def write(**fields: Any) -> None:
        (folder / "generation_config.json").write_text(json.dumps({**settings, **fields}))

    arguments = ("generate", source, "-m", str(folder), *GREEDY)
    free = {beams: reference(folder, source, num_beams=beams) for beams in (1, 3)}
    letter = int(run("encode", "a", "-m", str(folder)).stdout)
    write(sequence_bias=[[[letter], 40.0]], encoder_no_repeat_ngram_size=2)
    for beams in (1, 3):
        repeating = reference(folder, source, num_beams=beams, encoder_no_repeat_ngram_size=0)
        expected = reference(folder, source, num_beams=beams)
        assert repeating != expected
        [record] = records(*arguments, "--num-beams", str(beams))
        assert ids_of(record) == expected[: len(ids_of(record))]
    write(max_length=6)  # of the translation
    steps = records("sample", source, "-m", str(folder), "--greedy")
    assert [step["id"] for step in steps] == free[1][:5]
    write(guidance_scale=1.8)  # against a text without its source, which has no probabilities
    warning = "Warning: the model's generation_config asks for guidance_scale: ignored"
    for beams in (1, 3):
        result = run(*arguments, "--format", "jsonl", "--num-beams", str(beams))
        assert result.stderr.splitlines() == [warning]
        ids = ids_of(json.loads(result.stdout))
        assert ids == free[beams][: len(ids)]


def test_language_to_translate_into(bart: Path) -> None:
    [french] = add_tokens(bart, "fr_XX")
    expected = reference(bart, SOURCES[0], SEP, french)
    arguments = ("generate", SOURCES[0], "-m", str(bart), *GREEDY, "--target-lang")
    assert ids_of(records(*arguments, "fr_XX")[0]) == expected
    add_tokens(bart, ">>de<<")
    expected = reference(bart, f">>de<<{SOURCES[0]}")
    for code in ("de", ">>de<<"):  # the source begins with it
        [record] = records(*arguments, code)
        assert (ids_of(record), record["usage"]["prompt_tokens"]) == (expected, len(SOURCES[0]) + 1)
    refused = run(*arguments, "it_IT")
    assert refused.stderr.splitlines() == [
        "Error: the tokenizer has no token for the language 'it_IT'",
        "Hint: it has >>de<<, fr_XX …",
    ]


def test_an_encoder_decoder_does_not_chat(bart: Path) -> None:
    result = run("chat", "-m", str(bart), stdin="Hello\n")
    assert result.exit_code == 1
    assert "is an encoder-decoder" in result.stderr


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertForMaskedLM

    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=VOCABULARY + 4,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    torch.manual_seed(3)
    make: Any = BertForMaskedLM
    make(config).save_pretrained(folder)
    save_tokenizer(folder, framed=True, mask_token="<blank>")
    return folder


def test_masks_are_filled(bert: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    auto: Any = AutoModelForMaskedLM
    model = auto.from_pretrained(bert).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(bert)
    ids = tokenizer(MASKED.replace("[MASK]", "<blank>"))["input_ids"]
    rows = [i for i, token_id in enumerate(ids) if token_id == tokenizer.mask_token_id]
    with torch.inference_mode():
        best = model(torch.tensor([ids])).logits[0, rows].softmax(-1).topk(2)
    for text in (MASKED, MASKED.replace("[MASK]", "<blank>")):
        found = records("topk", text, "-m", str(bert), "-k", "2")
        assert [r["position"] for r in found] == [rows[0]] * 2 + [rows[1]] * 2
        assert [r["mask"] for r in found] == [0, 0, 1, 1]
        assert [r["id"] for r in found] == best.indices.flatten().tolist()
        assert [r["prob"] for r in found] == pytest.approx(best.values.flatten().tolist(), rel=1e-4)


@pytest.mark.parametrize("mask", ["[MASK]", "<mask>"])
def test_a_mask_token_that_no_file_names(bert: Path, tmp_path: Path, mask: str) -> None:
    """As in bert-base-uncased and roberta-base, where it is the default of a class."""
    folder = tmp_path / "bert"
    shutil.copytree(bert, folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<blank>", mask))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 64}))
    expected = records("topk", MASKED, "-m", str(bert), "-k", "2")
    assert records("topk", MASKED, "-m", str(folder), "-k", "2") == expected


def test_a_masked_model_and_a_text_without_a_mask(bert: Path) -> None:
    without = run("topk", "A text.", "-m", str(bert))
    assert without.exit_code == 2
    assert "the text has no <blank>" in without.stderr
    assert without.stderr.splitlines()[-1].startswith("Hint: put <blank>")
    continued = run("generate", "A text.", "-m", str(bert))
    assert continued.exit_code == 1
    assert "is a masked language model" in continued.stderr
    assert continued.stderr.splitlines()[-1].startswith("Hint: it fills in masks")


def test_pseudo_log_likelihood(bert: Path) -> None:
    """As Kauf and Ivanova (2023) define it: with each token, the tokens of its word that follow are
    masked. (minicons 0.3.39 gives the same numbers.)"""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    auto: Any = AutoModelForMaskedLM
    model = auto.from_pretrained(bert, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(bert)

    def reference(text: str, first: int = 0) -> list[float]:
        encoding = tokenizer(text)
        ids, words = encoding.input_ids, encoding.word_ids()
        values = []
        for i in range(1 + first, len(ids) - 1):
            masked = [
                tokenizer.mask_token_id if j == i or (j > i and words[j] == words[i]) else token_id
                for j, token_id in enumerate(ids)
            ]
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([masked])).logits[0, i].double()
            values.append(float(torch.log_softmax(logits, -1)[ids[i]]))
        return values

    texts = ["the sun is up", "x", "the cat is up", "it's a long one, indeed"]
    found = records("score", *texts, "-m", str(bert))
    for text, record in zip(texts, found, strict=True):
        expected = reference(text)
        assert record["tokens"] == len(expected)
        assert record["logprob"] == pytest.approx(sum(expected), rel=1e-5)
    words = records("score", texts[0], "-m", str(bert), "--by", "word")
    assert [w["word"] for w in words] == texts[0].split()
    assert words[1]["logprob"] == pytest.approx(sum(reference(texts[0])[3:7]), rel=1e-5)
    [given] = records("score", "--given", "the sun", " is up", "-m", str(bert))
    assert given["logprob"] == pytest.approx(sum(reference(texts[0], first=7)), rel=1e-5)
    *tokens, _ = records("score", texts[1], "-m", str(bert), "--by", "token")
    assert tokens[1]["token"] == "x"
    for arguments in (["x" * 70], ["a <blank>"], ["a", "--stride", "4"], ["--chat", "a"]):
        assert run("score", *arguments, "-m", str(bert)).exit_code in (1, 2)
