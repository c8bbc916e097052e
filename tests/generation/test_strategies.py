"""Beams, guessed tokens, several sequences and log-probabilities, against transformers' own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from hftool.errors import HftoolError
from hftool.generation.beam_search import search
from hftool.generation.generate import generate
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import BeamSettings, CandidateGenerator, Generation, Request
from hftool.generation.sampling import SamplingSettings
from hftool.generation.speculative import assistant_generator, prompt_lookup_generator
from hftool.models.language_model import LanguageModel
from hftool.tokenization.incremental_decoder import IncrementalDecoder
from tests.conftest import run
from tests.tiny_models import (
    ARCHITECTURES,
    SLIDING_WINDOW,
    TOKENS,
    VOCABULARY,
    all_logits,
    greedy_ids,
    load_model,
    save_model,
    transformers_model,
)
from tools.tiny_architectures import architectures, save

GREEDY = SamplingSettings(greedy=True, seed=None)
SAMPLED = SamplingSettings(greedy=False, seed=11, temperature=0.8, top_k=20)
PROMPT = (1, 2, 3, 1, 2, 3, 1, 2)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    endless = {"eos_token_id": VOCABULARY}  # no text ends by itself
    return save_model(
        tmp_path_factory.mktemp(request.param), request.param, generation_config=endless
    )


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return transformers_model(folder)


def text_of(model: LanguageModel, ids: list[int]) -> str:
    stream = IncrementalDecoder(model.tokenizer, skip_special=True)
    return "".join(map(stream.step, ids)) + stream.end()


def last(events: Any) -> Generation:
    *_, record = events
    assert isinstance(record, Generation)
    return record


# Beam search


@pytest.mark.parametrize("settings", [{}, {"length_penalty": -1.0}, {"no_repeat_ngram_size": 2}])
def test_beams_are_those_of_transformers(
    model: LanguageModel, reference: Any, settings: dict[str, Any]
) -> None:
    prompt = torch.tensor([PROMPT])
    expected = reference.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=12,
        do_sample=False,
        num_beams=4,
        num_return_sequences=3,
        **settings,
    )
    beams = BeamSettings(4, 3, settings.get("length_penalty", 1.0))
    penalty = {k: v for k, v in settings.items() if k != "length_penalty"}
    asked = Request("", PROMPT, SamplingSettings(greedy=True, seed=None, **penalty), 12)
    records = list(search(model, asked, beams))
    texts = [text_of(model, row[len(PROMPT) :].tolist()) for row in expected]
    assert [record.text for record in records] == texts
    assert len(set(texts)) > 1
    assert [record.index for record in records] == [0, 1, 2]


@pytest.mark.parametrize("model_type", ["minimax", "llama"])
def test_beams_where_a_cache_would_be_wrong(tmp_path: Path, model_type: str) -> None:
    """MiniMax's states are not reordered, and dynamic scaling gives each length its own angles."""
    (architecture,) = [a for a in architectures(("causal",)) if a.model_type == model_type]
    save(architecture, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    if model_type == "llama":
        scaled = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
        config |= {"max_position_embeddings": 64, "rope_parameters": scaled}
        (tmp_path / "config.json").write_text(json.dumps(config))
    auto: Any = AutoModelForCausalLM
    reference = auto.from_pretrained(tmp_path, dtype=torch.float32).eval()
    prompt = "Seven of the wizards that were never there said nothing at all to them."
    ids = torch.tensor([list(prompt.encode())])
    settings = {"num_beams": 3, "max_new_tokens": 10, "do_sample": False, "use_cache": False}
    expected = reference.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    done = run(
        *("generate", prompt, "-m", str(tmp_path), "--num-beams", "3", "-n", "10", "--logprobs"),
        *("--dtype", "float32", "--format", "jsonl"),
    )
    got = [token["id"] for token in json.loads(done.stdout)["logprobs"]]
    assert got == expected[0, ids.shape[1] :].tolist()[: len(got)]
    assert len(got) > 4


def test_beam_ends_before_a_stop_string(smollm2: LanguageModel) -> None:
    ids = tuple(smollm2.tokenizer.encode("Once upon a time", special=True).ids)
    [full] = search(smollm2, Request("", ids, GREEDY, 12), BeamSettings(3, 1, 1.0))
    stop = full.text[5:11]
    asked = Request("", ids, GREEDY, 12, stop=(stop,))
    [cut] = search(smollm2, asked, BeamSettings(3, 1, 1.0))
    assert stop not in cut.text
    if cut.stop:
        assert (cut.stop, cut.finish_reason) == (stop, "stop")
    [alone] = search(smollm2, asked, BeamSettings(1, 1, 1.0))
    greedy = last(generate(smollm2, asked))
    assert (alone.text, alone.stop) == (greedy.text, greedy.stop)


def test_beams_on_the_command_line(folder: Path) -> None:
    arguments = ("generate", "-m", str(folder), "--dtype", "float32", "abcabc", "-n", "8")
    beams = ("--num-beams", "4", "--num-return-sequences", "2")
    records = json.loads(run(*arguments, *beams, "--json").stdout)
    assert [record["index"] for record in records] == [0, 1]
    assert [record["seed"] for record in records] == [None, None]
    text = run(*arguments, *beams).stdout
    assert text == "".join(record["text"] + "\n" for record in records)
    sampled = [
        json.loads(run(*arguments, *beams, "--json", "--seed", seed).stdout) for seed in "556"
    ]
    texts = [[record["text"] for record in records] for records in sampled]
    assert texts[0] == texts[1] != texts[2]
    assert sampled[0][0]["seed"] == 5


# Guessed tokens


class Counting:
    """A candidate generator that counts its guesses."""

    def __init__(self, generator: CandidateGenerator) -> None:
        self.generator, self.guessed = generator, 0

    def __call__(self, ids: Any) -> list[int]:
        found = self.generator(ids)
        self.guessed += len(found)
        return found


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_guesses_change_nothing(model: LanguageModel, settings: SamplingSettings) -> None:
    asked = Request("", PROMPT, settings, 40)
    plain = last(generate(model, asked))
    perfect, looked_up = (
        Counting(assistant_generator(model, model)),
        Counting(prompt_lookup_generator(4)),
    )
    for guesses in (perfect, looked_up, lambda ids: [7, 7, 7]):
        guided = last(generate(model, asked, candidate_generator=guesses))
        assert (guided.text, guided.usage) == (plain.text, plain.usage)
    assert perfect.guessed >= 30
    assert looked_up.guessed > 0


def test_greedy_prompt_lookup_of_transformers(model: LanguageModel, reference: Any) -> None:
    expected = greedy_ids(reference, PROMPT, 30, prompt_lookup_num_tokens=3)
    guided = last(
        generate(
            model, Request("", PROMPT, GREEDY, 30), candidate_generator=prompt_lookup_generator(3)
        )
    )
    assert guided.text == text_of(model, expected)


def test_guesses_save_passes(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Perfect guesses take a sixth of the passes, even beyond a sliding window."""
    passes: list[int] = []
    forward = CachedModel._forward

    def counted(self: CachedModel, ids: Any, count: int) -> torch.Tensor:
        if self is target:
            passes.append(len(ids))
        return forward(self, ids, count)

    monkeypatch.setattr(CachedModel, "_forward", counted)
    target = CachedModel(model, rewinds=True)
    guesses = assistant_generator(model, model)
    record = last(
        generate(
            model, Request("", PROMPT, GREEDY, 36), cached_model=target, candidate_generator=guesses
        )
    )
    assert record.completion_tokens == 36 > SLIDING_WINDOW
    assert len(passes) == 6
    assert sum(passes[1:]) == 5 * 6  # nothing is computed a second time


def test_guesses_at_the_end_of_the_context(tmp_path: Path) -> None:
    endless = {"eos_token_id": VOCABULARY}
    short = load_model(save_model(tmp_path, context=12, generation_config=endless))
    plain = last(generate(short, Request("", PROMPT, GREEDY, 30)))
    assert plain.completion_tokens == 5
    for guesses in (assistant_generator(short, short), prompt_lookup_generator(6)):
        request = Request("", PROMPT, GREEDY, 30)
        assert last(generate(short, request, candidate_generator=guesses)).text == plain.text


def test_assistant_of_another_vocabulary(smollm2: LanguageModel, model: LanguageModel) -> None:
    with pytest.raises(HftoolError, match="have different vocabularies"):
        assistant_generator(smollm2, model)


def test_guesses_on_the_command_line(folder: Path) -> None:
    arguments = ("generate", "-m", str(folder), "--dtype", "float32", "abcabcab", "--seed", "3")
    plain = run(*arguments).stdout
    assert run(*arguments, "--prompt-lookup", "3").stdout == plain
    assert run(*arguments, "--assistant-model", str(folder)).stdout == plain


def with_rows(folder: Path, rows: int, target: Path, scale: float = 1.0) -> Path:
    """A copy of a model with another number of embedding rows; new ones have large logits."""
    shutil.copytree(folder, target)
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32)
    before = model.config.vocab_size
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head *= scale
        if rows > before:
            shares = torch.linspace(0.3, 3, rows - before)[:, None]
            head[before:] = shares * head[:100].sum(0)
    model.save_pretrained(target)
    return target


@pytest.mark.parametrize("rows", [(VOCABULARY, VOCABULARY + 60), (VOCABULARY + 60, TOKENS)])
def test_a_draft_with_other_embedding_rows_changes_no_text(
    rows: tuple[int, int], tmp_path: Path
) -> None:
    base = save_model(tmp_path / "base", generation_config={"eos_token_id": None})
    ours, theirs = (with_rows(base, n, tmp_path / str(n)) for n in rows)
    model = load_model(ours)
    generator = assistant_generator(model, load_model(theirs))
    guessed = [len(generator(ids)) for ids in (PROMPT, (1, 2), (5,))]
    assert sum(guessed) > 0
    assert all(i < rows[0] for ids in (PROMPT, (1, 2)) for i in generator(ids))
    for settings in (GREEDY, SAMPLED):
        asked = Request("", PROMPT, settings, 24, skip_special=False)
        expected = last(generate(model, asked))
        found = last(generate(model, asked, candidate_generator=generator))
        assert found.text == expected.text
    beyond = generator((VOCABULARY + 59,))
    assert bool(beyond) == (rows[1] > VOCABULARY + 59)


def test_a_draft_that_fails_is_left_out(
    folder: Path, model: LanguageModel, tmp_path: Path, notes: pytest.LogCaptureFixture
) -> None:
    broken = with_rows(folder, VOCABULARY, tmp_path / "broken", float("nan"))
    generator = assistant_generator(model, load_model(broken))
    asked = Request("", PROMPT, GREEDY, 8)
    found = last(generate(model, asked, candidate_generator=generator))
    assert found.text == last(generate(model, asked)).text
    [warning] = [r.getMessage() for r in notes.records if r.levelname == "WARNING"]
    assert warning.startswith(f"the assistant model {broken} fails, and is not used: ")


@pytest.mark.parametrize(
    "options",
    [
        ("--assistant-model", "smollm2", "--prompt-lookup", "3"),
        ("--num-beams", "2", "--prompt-lookup", "3"),
        ("--num-beams", "2", "--num-return-sequences", "3"),
        ("--greedy", "--num-return-sequences", "3"),
    ],
    ids=" ".join,
)
def test_options_that_exclude_each_other(folder: Path, options: tuple[str, ...]) -> None:
    result = run("generate", "-m", str(folder), "ab", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")


# Several sequences


def test_sequences_are_those_of_their_seeds(folder: Path) -> None:
    arguments = ("generate", "-m", str(folder), "--dtype", "float32", "abc", "-n", "9", "--json")
    several = run(*arguments, "--seed", "7", "--num-return-sequences", "3")
    records = json.loads(several.stdout)
    assert [(r["index"], r["seed"]) for r in records] == [(0, 7), (1, 8), (2, 9)]
    for record in records:
        [alone] = json.loads(run(*arguments, "--seed", str(record["seed"])).stdout)
        assert alone["text"] == record["text"]
    assert len({record["text"] for record in records}) == 3
    drawn = json.loads(run(*arguments, "--num-return-sequences", "2").stdout)
    assert drawn[1]["seed"] == drawn[0]["seed"] + 1


# Log-probabilities, echo


def test_logprobs_are_the_models_own(model: LanguageModel, reference: Any) -> None:
    for beams in (None, BeamSettings(3, 1, 1.0)):
        asked = Request("", PROMPT, SAMPLED if beams is None else GREEDY, 6, logprobs=3)
        record = (
            last(generate(model, asked)) if beams is None else last(search(model, asked, beams))
        )
        assert record.logprobs is not None
        ids = list(PROMPT)
        assert len(record.logprobs) == 6
        for token in record.logprobs:
            expected = torch.log_softmax(all_logits(reference, ids)[-1].double(), dim=-1)
            assert token.id is not None
            assert token.logprob == pytest.approx(float(expected[token.id]), abs=1e-4)
            assert [t.id for t in token.top] == expected.topk(3).indices.tolist()
            best = [t.logprob for t in token.top]
            assert best == pytest.approx(expected.topk(3).values.tolist(), abs=1e-4)
            assert token.token == model.tokenizer.token_text(token.id)
            ids.append(token.id)


def test_logprobs_on_the_command_line(folder: Path) -> None:
    arguments = ("generate", "-m", str(folder), "--dtype", "float32", "abc", "-n", "3", "--json")
    [plain] = json.loads(run(*arguments).stdout)
    assert "logprobs" not in plain
    [chosen] = json.loads(run(*arguments, "--logprobs").stdout)
    assert [len(token["top"]) for token in chosen["logprobs"]] == [0, 0, 0]
    [best] = json.loads(run(*arguments, "--top-logprobs", "2").stdout)
    assert [len(token["top"]) for token in best["logprobs"]] == [2, 2, 2]


def test_echo(folder: Path) -> None:
    arguments = ("generate", "-m", str(folder), "--dtype", "float32", "--greedy", "-n", "5")
    plain = run(*arguments, " a\tb").stdout
    assert run(*arguments, "--echo", " a\tb").stdout == " a\tb" + plain
    [record] = json.loads(run(*arguments, "--echo", "--json", " a\tb").stdout)
    assert record["text"] + "\n" == " a\tb" + plain
    kept = run(*arguments, "--echo", "--chat", "--keep-special", "hi").stdout
    assert kept.startswith("<|user|>hi<|end|><|assistant|>")
