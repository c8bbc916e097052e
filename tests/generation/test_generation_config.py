"""Every field of a generation_config.json, in every way of generating, against transformers' own
`generate` on models with large random weights."""

import inspect
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    GenerationConfig,
)
from transformers.generation.utils import GenerationMixin

from hftool.generation.batch import generate_batch
from hftool.generation.generate import generate
from hftool.generation.records import CandidateGenerator, Generation, Request
from hftool.generation.requests import make_request
from hftool.generation.speculative import prompt_lookup_generator
from hftool.generation.steps import sampler_of_prompt
from hftool.models.generation_config import (
    OWN_FIELDS,
    PROCESSOR_FIELDS,
    UNUSED_FIELDS,
    read_generation_config,
)
from hftool.models.language_model import LanguageModel
from hftool.options.generation import GenerateOptions, GenerationOptions
from hftool.options.inputs import PromptOptions
from hftool.options.sampling import SamplingOptions
from tests.conftest import run
from tests.tiny_models import END, PAD, SPECIAL, VOCABULARY, load_model, save_model, save_tokenizer

PROMPT = "Hello there, hello there"
TOKENS = 14
SIZES = {"layers": 2, "attention_heads": 4, "ffn_dim": 48}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose every weight matters: each text varies with all that is before it."""
    folder = save_model(tmp_path_factory.mktemp("base"), generation_config={"eos_token_id": END})
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 1.0 if "embed" in name else 0.25)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reference(base: Path) -> Any:
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(base, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tiny(base: Path) -> LanguageModel:
    return load_model(base)


@pytest.fixture(scope="module")
def free(reference: Any, base: Path) -> list[int]:
    """The greedy text without any field."""
    return theirs(reference, base, {"eos_token_id": END}, max_new_tokens=TOKENS)


def theirs(reference: Any, base: Path, fields: dict[str, Any], **settings: Any) -> list[int]:
    """What transformers' `generate` adds to the prompt if its model has these fields."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    make: Any = GenerationConfig
    reference.generation_config = make(**fields)
    prompt = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    if "stop_strings" in fields:
        settings["tokenizer"] = tokenizer
    output = reference.generate(
        prompt, attention_mask=torch.ones_like(prompt), pad_token_id=END, **settings
    )
    return [int(i) for i in output[0, prompt.shape[1] :]]


def ours(tiny: LanguageModel, fields: dict[str, Any]) -> LanguageModel:
    return LanguageModel(tiny.name, tiny.model, tiny.tokenizer, fields)


def request(
    model: LanguageModel, sampling: SamplingOptions, prompt: str = PROMPT, **options: Any
) -> Request:
    ids = list(model.tokenizer.encode(prompt, special=True).ids)
    asked = GenerateOptions(
        PromptOptions(),
        sampling,
        GenerationOptions(**{"max_new_tokens": TOKENS, "skip_special": False, **options}),
    )
    return make_request(model, prompt, ids, asked)


def ids_of(
    model: LanguageModel, asked: Request, guesses: CandidateGenerator | None = None
) -> list[int]:
    """The ids of a text, read from its log-probabilities."""
    from dataclasses import replace

    from hftool.generation.sequential import generate_each

    *_, record = generate_each(model, [replace(asked, logprobs=0)], guesses)
    assert isinstance(record, Generation) and record.logprobs is not None
    return [token.id for token in record.logprobs if token.id is not None]


def cases(free: list[int]) -> dict[str, dict[str, Any]]:
    """Fields that change the greedy text `free`; {} are those that only drawing has."""
    length = len(PROMPT)
    return {
        "suppress_tokens": {"suppress_tokens": [free[0], free[2]]},
        "begin_suppress_tokens": {"begin_suppress_tokens": [free[0]]},
        "bad_words_ids": {"bad_words_ids": [[free[1], free[2]], [free[4]]]},
        "sequence_bias": {"sequence_bias": [[[free[1]], -50.0], [[free[0], 7], 60.0]]},
        "min_new_tokens": {"eos_token_id": free[3], "min_new_tokens": 8},
        "min_length": {"eos_token_id": [free[3], END], "min_length": length + 8},
        "both minima": {"eos_token_id": free[3], "min_length": length + 12, "min_new_tokens": 2},
        "forced_eos_token_id": {"forced_eos_token_id": END},
        "forced_bos_token_id": {"forced_bos_token_id": 65, "begin_suppress_tokens": [free[0]]},
        "exponential_decay_length_penalty": {"exponential_decay_length_penalty": [3, 2.5]},
        "encoder_repetition_penalty": {"encoder_repetition_penalty": 4.0},
        "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
        "guidance_scale": {"guidance_scale": 1.7},
        "watermarking_config": {"watermarking_config": {"greenlist_ratio": 0.25, "bias": 8.0}},
        "repetition_penalty": {"repetition_penalty": 1.8},
        "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
        "renormalize_logits": {"renormalize_logits": True, "repetition_penalty": 0.5},
        "remove_invalid_values": {"remove_invalid_values": True, "suppress_tokens": [free[1]]},
        "max_new_tokens": {"max_new_tokens": 5},
        "max_length": {"max_length": length + 6},
        "several": {
            **{"suppress_tokens": [free[0]], "repetition_penalty": 1.3, "guidance_scale": 1.4},
            **{"min_new_tokens": 6, "bad_words_ids": [[free[3]]], "forced_eos_token_id": END},
        },
        "neutral": {
            **{"guidance_scale": 1.0, "min_length": 0, "encoder_repetition_penalty": 1.0},
            **{"suppress_tokens": None, "epsilon_cutoff": 0.0, "renormalize_logits": False},
        },
    }


NAMES = list(cases([0] * TOKENS))


@pytest.mark.parametrize("name", NAMES)
def test_each_field_in_each_way_of_generating(
    name: str, tiny: LanguageModel, reference: Any, base: Path, free: list[int]
) -> None:
    fields = {"eos_token_id": END, **cases(free)[name]}
    has_length = name in ("max_new_tokens", "max_length")
    length = {} if has_length else {"max_new_tokens": TOKENS}
    expected = theirs(reference, base, fields, **length)
    assert (expected == free) == (name == "neutral")
    model = ours(tiny, fields)
    asked = request(
        model, SamplingOptions(greedy=True), max_new_tokens=None if has_length else TOKENS
    )
    assert ids_of(model, asked) == expected
    assert ids_of(model, asked, prompt_lookup_generator(4)) == expected
    assert ids_of(model, asked, lambda ids: free[:3]) == expected
    other = request(model, SamplingOptions(greedy=True), "Another, longer or shorter")
    first, second = generate_batch(model, [asked, other])
    assert isinstance(first, Generation) and isinstance(second, Generation)
    *_, alone = generate(model, asked)
    *_, other_alone = generate(model, other)
    assert (first.text, second.text) == (alone.text, other_alone.text)

    steps = sampler_of_prompt(
        model,
        PROMPT,
        PromptOptions(),
        SamplingOptions(greedy=True),
        max_steps=None if has_length else TOKENS,
        k=3,
    )
    taken = [steps.step() for _ in range(3)]
    steps.undo()
    assert [step.id for step in (*taken[:2], *steps.run())] == expected
    if name in PROCESSOR_FIELDS and name != "forced_bos_token_id":
        assert name in taken[0].candidates[0].after

    expected = theirs(reference, base, fields, num_beams=3, **length)
    asked = request(
        model,
        SamplingOptions(),
        max_new_tokens=None if has_length else TOKENS,
        num_beams=3,
    )
    assert asked.beams is not None
    assert ids_of(model, asked) == expected[: expected.index(END) + 1 if END in expected else None]


def test_stop_strings_end_the_text(
    tiny: LanguageModel, reference: Any, base: Path, free: list[int]
) -> None:
    texts = map(tiny.tokenizer.decode, zip(free[1:], strict=True))
    stop = next(text for text in texts if text.isascii())
    for strings in (stop, [stop, "never"]):
        fields = {"stop_strings": strings}
        expected = theirs(reference, base, {**fields, "eos_token_id": END}, max_new_tokens=TOKENS)
        model = ours(tiny, {**fields, "eos_token_id": END})
        asked = request(model, SamplingOptions(greedy=True))
        assert ids_of(model, asked) == expected
        record = next(generate_batch(model, [asked]))
        assert isinstance(record, Generation) and record.stop == stop
        assert len(ids_of(model, request(model, SamplingOptions(), num_beams=3))) < TOKENS
        sampler = sampler_of_prompt(
            model, PROMPT, PromptOptions(), SamplingOptions(greedy=True), max_steps=TOKENS, k=1
        )
        assert [step.id for step in sampler.run()] == expected
        other = request(model, SamplingOptions(greedy=True), stop=["never"])
        assert ids_of(model, other) == free


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.7, "top_h": 0.4},
        {"top_k": 0, "epsilon_cutoff": 0.01},
        {"top_k": 9, "eta_cutoff": 0.02},
        {"top_p": 0.9, "min_p": 0.02, "typical_p": 0.95, "top_k": 30, "bad_words_ids": [[7]]},
        {"suppress_tokens": [3, 4, 5], "repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
    ],
    ids=lambda fields: "+".join(fields),
)
def test_drawn_tokens_have_the_probabilities_of_transformers(
    fields: dict[str, Any], tiny: LanguageModel, reference: Any, base: Path
) -> None:
    fields = {"eos_token_id": END, "do_sample": True, **fields}
    make: Any = GenerationConfig
    reference.generation_config = make(**fields)
    model = ours(tiny, fields)
    sampler = sampler_of_prompt(
        model, PROMPT, PromptOptions(), SamplingOptions(seed=1), max_steps=4, k=VOCABULARY
    )
    ids = list(sampler.prompt_ids)
    for step in sampler.run():
        prompt = torch.tensor([ids])
        expected = reference.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=1,
            pad_token_id=END,
            output_scores=True,
            return_dict_in_generate=True,
        ).scores[0]
        probs = torch.softmax(expected[0].double(), dim=-1)
        found = torch.zeros(VOCABULARY, dtype=torch.float64)
        for candidate in step.candidates:
            assert candidate.id is not None and candidate.sampled_prob is not None
            found[candidate.id] = candidate.sampled_prob
        torch.testing.assert_close(found, probs, atol=1e-5, rtol=1e-3)
        names = [name for name in fields if name not in ("eos_token_id", "do_sample")]
        short = {"no_repeat_ngram_size": "no_repeat_ngram"}
        assert {short.get(n, n) for n in names if fields[n]} <= set(step.candidates[0].after)
        ids += sampler.ids[-1:]


def test_beams_of_the_file(
    tiny: LanguageModel, reference: Any, base: Path, free: list[int]
) -> None:
    fields = {"eos_token_id": END, "num_beams": 4, "length_penalty": 0.0, "early_stopping": True}
    expected = theirs(reference, base, fields, max_new_tokens=TOKENS)
    model = ours(tiny, fields)
    asked = request(model, SamplingOptions())
    assert asked.beams is not None and asked.settings.greedy
    assert ids_of(model, asked) == expected
    assert ids_of(model, request(model, SamplingOptions(greedy=True), num_beams=1)) == free
    sampled = request(ours(tiny, {**fields, "do_sample": True}), SamplingOptions())
    assert not sampled.settings.greedy


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-8, 1e-42, 5e-324])
def test_no_temperature_is_greedy(temperature: float, tiny: LanguageModel, free: list[int]) -> None:
    for do_sample in (None, True):
        fields = {"eos_token_id": END, "temperature": temperature, "do_sample": do_sample}
        model = ours(tiny, fields)
        assert ids_of(model, request(model, SamplingOptions())) == free
        warm = request(model, SamplingOptions(temperature=0.8, seed=1))
        assert warm.settings.temperature == 0.8
    assert ids_of(tiny, request(tiny, SamplingOptions(temperature=temperature))) == free


WRONG = [
    {"suppress_tokens": "abc"},
    {"bad_words_ids": [3]},
    {"bad_words_ids": [[VOCABULARY + 5]]},
    {"sequence_bias": {"a": 1}},
    {"forced_eos_token_id": VOCABULARY + 5},
    {"exponential_decay_length_penalty": 3},
    {"watermarking_config": {"greenlist_ratio": 3.0}},
    {"suppress_tokens": list(range(VOCABULARY))},
    {"top_h": 5.0},
    {"min_new_tokens": "many"},
    {"max_new_tokens": 0},
    {"max_length": 3},
    {"num_beams": "4"},
    {"stop_strings": [3]},
    {"temperature": float("nan")},
    {"guidance_scale": "much"},
    {"guidance_scale": float("nan")},
    {"sequence_bias": [[[3], float("inf")]]},
]


def copy_with(base: Path, folder: Path, **fields: Any) -> str:
    """A copy of a model with another generation_config.json."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    content = json.dumps({"eos_token_id": END, **fields})
    (folder / "generation_config.json").write_text(content)
    return str(folder)


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: json.dumps(fields)[:40])
def test_a_wrong_value_is_one_line(fields: dict[str, Any], base: Path, tmp_path: Path) -> None:
    folder = copy_with(base, tmp_path, do_sample=True, **fields)
    length = () if "max" in next(iter(fields)) else ("-n", "3")
    done = run("generate", "-m", folder, PROMPT, *length)
    assert done.exit_code == 1, done.stdout
    error, *hint = done.stderr.splitlines()
    assert "generation_config" in error and len(hint) <= 1
    done = run("generate", "-m", folder, PROMPT, *length, "--num-beams", "2", "--greedy")
    drawing = {"temperature", "top_h"} & fields.keys()  # without effect when greedy
    assert bool(drawing or "num_beams" in fields) == (done.exit_code == 0)


def test_a_wrong_value_fails_each_record(base: Path, tmp_path: Path) -> None:
    folder = copy_with(base, tmp_path, bad_words_ids=[[VOCABULARY + 5]])
    source = '{"prompt": "ab"}\n{"prompt": "abc"}\n'
    done = run("generate", "-m", folder, "--batch", "-", "-n", "2", stdin=source)
    assert done.exit_code == 1
    errors = [json.loads(line)["error"] for line in done.stdout.splitlines()]
    assert len(errors) == 2 and all("generation_config" in error for error in errors)


def test_fields_that_are_not_used_are_reported_once(base: Path, tmp_path: Path) -> None:
    folder = copy_with(
        base,
        tmp_path,
        **{"max_time": 3.0, "num_beam_groups": 1, "num_beams": 2, "token_healing": True},
        **{"my_own": 3, "num_return_sequences": 2},
    )
    asks = "Warning: the model's generation_config asks for {}: ignored\n"
    arguments = ("-m", folder, "--dtype", "float32")
    done = run("generate", *arguments, "--lines", "-n", "2", stdin="a\nb\n")
    assert (done.exit_code, done.stderr) == (0, asks.format("max_time, token_healing"))
    done = run("sample", *arguments, "ab", "--steps", "1")
    assert done.stderr == asks.format("max_time, token_healing, num_beams, num_return_sequences")
    done = run("generate", *arguments, "-n", "2", "--batch", "-", stdin='{"prompt": "a"}\n' * 3)
    assert done.stderr == asks.format("max_time, token_healing, num_return_sequences")
    assert len(done.stdout.splitlines()) == 3
    done = run("generate", *arguments, "-n", "2", "ab", "--prompt-lookup", "3", "-q")
    with_drafts = run("generate", *arguments, "-n", "2", "ab", "-q")
    assert (done.exit_code, done.stdout) == (0, with_drafts.stdout)  # the text is that of beams


def test_old_models_have_the_fields_in_their_config(tmp_path: Path) -> None:
    config = {"suppress_tokens": [3], "min_length": 4, "vocab_size": 9, "top_k": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_generation_config(tmp_path) == {"suppress_tokens": [3], "min_length": 4}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"num_beams": 4}, **config}))
    assert read_generation_config(tmp_path)["num_beams"] == 4
    (tmp_path / "generation_config.json").write_text('{"top_k": 3}')
    assert read_generation_config(tmp_path) == {"top_k": 3}


def test_a_chat_follows_the_file(base: Path, tmp_path: Path) -> None:
    prompt = f"{SPECIAL[2]}Hi{SPECIAL[0]}{SPECIAL[3]}"
    fields: dict[str, Any]
    for fields in (
        {"suppress_tokens": list(range(0, VOCABULARY, 3)), "max_new_tokens": 4},
        {"num_beams": 3, "max_length": 12},
        {"begin_suppress_tokens": [*range(90), END], "forced_eos_token_id": END},
    ):
        folder = copy_with(base, tmp_path, **fields)
        arguments = ["-m", folder, "--dtype", "float32", "--greedy", "--json"]
        arguments += ["-n", "6"] * ("forced_eos_token_id" in fields)
        [said] = json.loads(run("generate", *arguments, prompt).stdout)
        turns = json.loads(run("chat", *arguments, stdin="Hi\n").stdout)
        assert (turns[1]["content"], turns[1]["completion_tokens"]) == (
            said["text"],
            said["usage"]["completion_tokens"],
        )


def test_a_chat_stays_within_max_length(base: Path, tmp_path: Path) -> None:
    folder = copy_with(base, tmp_path, max_length=40, suppress_tokens=[END])
    done = run("chat", "-m", folder, "--greedy", "--json", stdin="Hi\n" * 5)
    assert done.exit_code == 0, done.stderr
    answers = json.loads(done.stdout)[1::2]
    assert len(answers) == 5
    assert all(a["prompt_tokens"] + a["completion_tokens"] == 40 for a in answers)
    assert "the context is full: dropped the oldest" in done.stderr
    done = run("chat", "-m", folder, "--json", stdin="x" * 50 + "\n")
    assert "max_length of the model's generation_config is 40" in done.stderr
    assert "--max-new-tokens" in done.stderr
    done = run("chat", "-m", folder, "--json", "-n", "3", stdin="x" * 50 + "\n")
    assert json.loads(done.stdout)[1]["completion_tokens"] == 3


def test_transformers_has_no_other_fields() -> None:
    """A new version of transformers may have more, which must not be ignored silently."""
    source = inspect.getsource(GenerationMixin._get_logits_processor)
    used = set(re.findall(r"generation_config\.([a-z]\w+)", source))
    known = {*OWN_FIELDS, *PROCESSOR_FIELDS}
    assert used - known == {"use_cache"}
    make: Any = GenerationConfig
    harmless: Iterator[str] = (
        name
        for name in vars(make())
        if not name.startswith("_") and name not in {*known, *UNUSED_FIELDS}
    )
    assert set(harmless) == {
        *("use_cache", "cache_implementation", "cache_config", "max_cache_len"),
        *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
        *("return_dict_in_generate", "is_assistant", "num_assistant_tokens"),
        *("num_assistant_tokens_schedule", "assistant_confidence_threshold"),
        *("prompt_lookup_num_tokens", "max_matching_ngram_size", "assistant_early_exit"),
        *("assistant_lookbehind", "target_lookbehind", "speculation_type", "compile_config"),
        *("disable_compile", "continuous_batching_config", "low_memory", "prefill_chunk_size"),
        "transformers_version",
    }


def test_fields_about_the_source_of_an_encoder_decoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in SIZES.items()}
    make: Any = BartConfig
    config = make(
        vocab_size=VOCABULARY, d_model=32, decoder_start_token_id=END, pad_token_id=PAD, **sizes
    )
    auto: Any = AutoModelForSeq2SeqLM
    model = auto.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.4)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    fields = {"eos_token_id": END, "decoder_start_token_id": END, "encoder_repetition_penalty": 4.0}
    (tmp_path / "generation_config.json").write_text(json.dumps(fields))
    reference = auto.from_pretrained(tmp_path).eval()
    ids = AutoTokenizer.from_pretrained(tmp_path)(PROMPT, return_tensors="pt")["input_ids"]
    expected = reference.generate(ids, max_new_tokens=8, do_sample=False)[0, 1:].tolist()
    tiny = load_model(tmp_path)
    asked = request(tiny, SamplingOptions(greedy=True), max_new_tokens=8)
    assert ids_of(tiny, asked) == expected
    first, _ = generate_batch(tiny, [asked, request(tiny, SamplingOptions(greedy=True), "x")])
    *_, alone = generate(tiny, asked)
    assert isinstance(first, Generation) and isinstance(alone, Generation)
    assert first.text == alone.text
