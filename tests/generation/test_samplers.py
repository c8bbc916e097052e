"""Our own filters: by hand, against a plain search, against llama.cpp on the same logits, and in
every way of generating."""

import ctypes
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hftool.errors import UsageError
from hftool.generation.batch import generate_batch
from hftool.generation.batch_file import numbered_records
from hftool.generation.beam_search import search
from hftool.generation.filters import build_filters
from hftool.generation.prefix_cache import CachedModel
from hftool.generation.records import BeamSettings, Generation, Request
from hftool.generation.requests import requests_of_records
from hftool.generation.resolution import parse_samplers, resolve_sampling
from hftool.generation.samplers import (
    dry,
    exclude_top_choices,
    keep_top_n_sigma,
    penalize_frequency,
    penalize_presence,
    step_number,
)
from hftool.generation.sampling import (
    FIELDS,
    PENALTIES,
    SAMPLERS,
    SamplingSettings,
    apply_filters,
)
from hftool.generation.sequential import generate_each
from hftool.generation.speculative import prompt_lookup_generator
from hftool.generation.steps import StepSampler
from hftool.generation.text_bias import biases, spellings
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.models.references import GgufFile, resolve_reference
from hftool.options.generation import GenerateOptions, GenerationOptions
from hftool.options.inputs import FileOptions, PromptOptions
from hftool.options.model import LoadOptions
from hftool.options.sampling import SamplingOptions
from hftool.tokenization.tokenizer import Tokenizer
from tests.tiny_models import END, load_model, save_model, transformers_model

PROBS = torch.tensor([0.15, 0.5, 0.05, 0.3])
PROMPT = (1, 2, 3, 1, 2, 3, 1, 2)
TOKENS = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(folder)


# By hand: the examples of docs/sampling.md


def test_penalties_by_hand() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0])
    assert penalize_presence([0, 3, 3], logits, 0.5).tolist() == [1.5, 1.0, 0.5, -1.5]
    assert penalize_frequency([0, 3, 3], logits, 0.5).tolist() == [1.5, 1.0, 0.5, -2.0]
    assert penalize_presence([], logits, 0.5).tolist() == logits.tolist()


def test_dry_by_hand() -> None:
    # a b c c b c y a b c: the last three have occurred, followed by c; b c by y; c by c and b
    ids = [0, 1, 2, 2, 1, 2, 3, 0, 1, 2]
    changed = dry(ids, torch.zeros(5), 1.0, 2.0, 2, ())
    assert changed.tolist() == [0, 0, -(2.0 ** (3 - 2)), -(2.0 ** (2 - 2)), 0]
    # a line break between a and b leaves "b c"
    ids = [0, 9, 1, 2, 2, 3, 0, 9, 1, 2]
    changed = dry(ids, torch.zeros(10), 0.8, 1.75, 2, {9})
    assert changed.tolist() == pytest.approx([0, 0, -0.8, *[0] * 7])
    assert dry(ids, torch.zeros(10), 0.8, 1.75, 3, {9}).tolist() == [0] * 10


def test_top_n_sigma_by_hand() -> None:
    # logits of PROBS: -1.8971 -0.6931 -2.9957 -1.2040; mean -1.6975, deviation 0.8619
    kept = keep_top_n_sigma(PROBS.log(), 1.0) > -torch.inf  # at least -1.5551
    assert kept.tolist() == [False, True, False, True]
    masked = torch.tensor([-torch.inf, 1.0, 0.0, -torch.inf])  # deviation 0.5
    assert keep_top_n_sigma(masked, 1.9).tolist() == [-torch.inf, 1.0, -torch.inf, -torch.inf]


def test_xtc_by_hand() -> None:
    kept = exclude_top_choices(PROBS.log(), 0.2).exp()
    assert kept.tolist() == pytest.approx([0.15, 0, 0.05, 0.3])
    assert exclude_top_choices(PROBS.log(), 0.4).exp().tolist() == pytest.approx(PROBS.tolist())
    assert exclude_top_choices(PROBS.log(), 0.1).exp().tolist() == pytest.approx([0.15, 0, 0.05, 0])
    numbers = [step_number(3, step) for step in range(2000)]
    assert 0 <= min(numbers) and max(numbers) < 1 and abs(sum(numbers) / 2000 - 0.5) < 0.03


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # entropy 1.1421 nats; the terms of the best two are .3466 and .3612, of the third .2846
        ({"top_h": 0.7}, [0, 0.625, 0, 0.375]),
        ({"epsilon_cutoff": 0.1}, [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95]),
        # the least of 0.2 and sqrt(0.2) * exp(-1.1421) = .1427
        ({"eta_cutoff": 0.2}, [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95]),
    ],
)
def test_cutoffs_by_hand(settings: dict[str, Any], expected: list[float], folder: Path) -> None:
    resolved = resolve_sampling(SamplingOptions(top_k=0, seed=0, **settings), {})
    filters = build_filters(resolved, load_model(folder), PROMPT)
    scores = apply_filters(PROBS.log(), PROMPT, filters)
    assert torch.softmax(scores, -1).tolist() == pytest.approx(expected, abs=1e-4)


def repetition(ids: Sequence[int], follower: int, breakers: set[int]) -> int:
    """The longest end of the text that has occurred before this token."""
    longest = 0
    for i in range(1, len(ids)):
        if ids[i] == follower:
            n = 0
            while n < i and ids[i - 1 - n] == ids[-1 - n] and ids[-1 - n] not in breakers:
                n += 1
            longest = max(longest, n)
    return longest


def test_dry_against_a_plain_search() -> None:
    numbers = random.Random(1)
    for _ in range(300):
        ids = [numbers.randrange(4) for _ in range(numbers.randrange(1, 40))]
        breakers = {3} if numbers.random() < 0.5 else set()
        found = dry(ids, torch.zeros(4), 0.5, 1.5, 2, breakers).tolist()
        lengths = [repetition(ids, token, breakers) for token in range(4)]
        expected = [
            -0.5 * 1.5 ** (n - 2) if n >= 2 and token not in breakers else 0.0
            for token, n in enumerate(lengths)
        ]
        assert found == pytest.approx(expected), ids


# The order


def test_order_of_samplers() -> None:
    llama_cpp = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"
    assert parse_samplers(llama_cpp)[:3] == SAMPLERS[:3]
    assert parse_samplers("temp, top-p")[:2] == ("temperature", "top_p")
    options = SamplingOptions(seed=1, temperature=2.0, top_p=0.6, samplers="top_p;temperature")
    settings = resolve_sampling(options, {"min_p": 0.5})
    assert (settings.top_k, settings.min_p) == (0, 0.0)
    for samplers in ("mirostat", "top_p;top_p", ";", "top_p"):
        with pytest.raises(UsageError):
            resolve_sampling(replace(options, samplers=samplers), {})


def test_order_decides_what_is_left(model: LanguageModel) -> None:
    options = SamplingOptions(seed=1, temperature=3.0, top_p=0.65, top_k=0)
    usual = build_filters(resolve_sampling(options, {}), model, PROMPT)
    assert [item.name for item in usual] == ["temperature", "top_p"]
    given = replace(options, samplers="top_p temperature", top_k=None)
    turned = build_filters(resolve_sampling(given, {}), model, PROMPT)
    # .5 and .3 are enough; at temperature 3 they are .336 and .283
    kept = [(apply_filters(PROBS.log(), PROMPT, f) > -torch.inf).sum() for f in (usual, turned)]
    assert [int(count) for count in kept] == [3, 2]


# Every way of generating

ALL = SamplingSettings(
    greedy=False,
    seed=5,
    temperature=1.3,
    presence_penalty=0.7,
    frequency_penalty=0.4,
    dry_multiplier=0.9,
    dry_allowed_length=1,
    top_n_sigma=1.5,
    top_h=0.9,
    epsilon_cutoff=0.001,
    eta_cutoff=0.002,
    xtc_probability=0.5,
    xtc_threshold=0.05,
    bias=("a=3", "zz=2"),
    ban=("e", "ab"),
    min_new_tokens=4,
    ignore_eos=True,
)


def text_of(events: Any) -> str:
    *_, record = events
    assert isinstance(record, Generation)
    return record.text


@pytest.mark.parametrize(
    "settings",
    [
        ALL,
        replace(ALL, greedy=True, seed=None),
        replace(ALL, samplers=("xtc", "temperature", "presence_penalty")),
    ],
    ids=["sampled", "greedy", "ordered"],
)
def test_each_way_of_generating(settings: SamplingSettings, model: LanguageModel) -> None:
    asked = Request("", PROMPT, settings, TOKENS, skip_special=False)
    alone = text_of(generate_each(model, [asked]))
    assert alone != text_of(generate_each(model, [replace(asked, settings=GREEDY)]))
    for guess in (prompt_lookup_generator(3), lambda ids: [ids[-1], 7]):
        assert text_of(generate_each(model, [asked], guess)) == alone
    other = replace(asked, ids=PROMPT[:3], settings=replace(settings, top_k=9))
    batch = [r.text for r in generate_batch(model, [asked, other]) if isinstance(r, Generation)]
    assert batch == [alone, text_of(generate_each(model, [other]))]
    sampler = StepSampler(model, PROMPT, settings, max_steps=TOKENS, k=3)
    sampler.step()
    sampler.step()
    sampler.undo()
    *_, last = sampler.run()
    assert last.text == alone
    shown = alone.replace("<|user|>", "")
    assert "e" not in shown and "ab" not in shown
    assert {"bias", "ban", "min_new_tokens", "presence_penalty"} <= set(last.candidates[0].after)


GREEDY = SamplingSettings(greedy=True, seed=None)


def test_beams(model: LanguageModel, folder: Path) -> None:
    prompt = torch.tensor([PROMPT])
    given = biases(model.tokenizer, ("a=30",), any_case=False)
    assert [model.tokenizer.decode(ids) for ids in given] == [" ", "a", " a"]
    expected = transformers_model(folder).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=TOKENS,
        do_sample=False,
        num_beams=3,
        sequence_bias=[[list(ids), b] for ids, b in given.items()],
        min_new_tokens=9,
        suppress_tokens=[END],
    )
    steered = replace(GREEDY, bias=("a=30",), ignore_eos=True, min_new_tokens=9)
    [record] = search(model, Request("", PROMPT, steered, TOKENS), BeamSettings(3, 1, 1.0))
    assert record.text == model.tokenizer.decode(expected[0, len(PROMPT) :].tolist())
    banned = replace(steered, ban=("aa",), presence_penalty=1.0, dry_multiplier=1.0)
    [record] = search(model, Request("", PROMPT, banned, TOKENS), BeamSettings(3, 1, 1.0))
    assert "aa" not in record.text and "a" in record.text


@pytest.mark.parametrize("cutoff", [("top_h", 0.5), ("epsilon_cutoff", 0.02), ("eta_cutoff", 0.1)])
def test_beams_that_are_drawn(model: LanguageModel, folder: Path, cutoff: Any) -> None:
    prompt, texts = torch.tensor([PROMPT]), []
    for name, value in (cutoff, ("min_p", 0.0)):
        own: dict[str, Any] = {name: value}
        settings = SamplingSettings(greedy=False, seed=7, ignore_eos=True, **own)
        [record] = search(model, Request("", PROMPT, settings, TOKENS), BeamSettings(3, 1, 1.0))
        texts.append(record.text)
        torch.manual_seed(7)
        expected = transformers_model(folder).generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=TOKENS,
            do_sample=True,
            top_k=0,
            num_beams=3,
            suppress_tokens=[END],
            **{name: value or None},
        )
        assert record.text == model.tokenizer.decode(expected[0, len(PROMPT) :].tolist())
    assert texts[0] != texts[1]


def test_a_text_never_comes_in_any_spelling(model: LanguageModel) -> None:
    settings = replace(GREEDY, bias=("a=9", "b=9"), frequency_penalty=1.0)
    free = text_of(generate_each(model, [Request("", PROMPT, settings, 40)]))
    for text in (free[0], free[:2], free[2:5], free[1:9]):
        banned = replace(settings, ban=(text,))
        found = text_of(generate_each(model, [Request("", PROMPT, banned, 40)]))
        assert text.isascii() and text not in found, (text, found)


def test_spellings(tokenizer: Tokenizer) -> None:
    def texts(text: str, *, any_case: bool = False) -> list[str]:
        ids = spellings(tokenizer, text, any_case=any_case)
        return [tokenizer.decode(spelling) for spelling in ids]

    assert texts("cat") == ["cat", " cat"]
    assert texts(" cat") == [" cat"]
    assert texts("Cat", any_case=True) == ["Cat", "cat", "CAT", " Cat", " cat", " CAT"]
    assert spellings(tokenizer, "<|im_end|>", any_case=False)[0] == (2,)


def test_records_and_their_mistakes(model: LanguageModel) -> None:
    asked = GenerateOptions(PromptOptions(), SamplingOptions(), GenerationOptions())

    def parsed(*lines: str) -> list[Any]:
        data = numbered_records([line.encode() for line in lines])
        return list(requests_of_records(model, data, FileOptions(), asked))

    own = '"bias": {"a": 2}, "ban": "b", "samplers": "top_p", "xtc_probability": 0.5'
    [found, *failed] = parsed(
        '{"prompt": "x", "bias": {"a": 2}, "ban": "b", "samplers": "xtc", "xtc_probability": 0.5}',
        '{"prompt": "x", ' + own + "}",
        '{"prompt": "x", "bias": {"a": "b"}}',
        '{"prompt": "x", "ban": [""]}',
        '{"prompt": "x", "num_beams": 2, "xtc_probability": 0.5}',
        '{"prompt": "x", "dry_base": 2}',
    )
    settings = found.settings
    assert (settings.bias, settings.ban, settings.samplers) == (("a=2",), ("b",), ("xtc",))
    errors = [failure.error for failure in failed]
    assert [error.split()[0] for error in errors] == [
        *("--xtc-probability", "'a=b'", "a", "--num-beams", "--dry-base"),
    ]


# llama.cpp


class LlamaCpp:
    """llama.cpp's samplers, by the names of our settings."""

    def __init__(self) -> None:
        self.library: Any = pytest.importorskip("llama_cpp").llama_cpp
        params = self.library.llama_model_default_params()
        params.vocab_only = True
        gguf = resolve_reference("smollm2")
        assert isinstance(gguf, GgufFile)
        self.model = self.library.llama_model_load_from_file(str(gguf.path).encode(), params)

    def sampler(self, name: str, settings: SamplingSettings) -> Any:
        """The sampler of `--samplers NAME`."""
        library, value = self.library, getattr(settings, FIELDS[name])
        if name == "dry":
            breakers = (ctypes.c_char_p * 4)(b"\n", b":", b'"', b"*")
            vocabulary = library.llama_model_get_vocab(self.model)
            how = (value, settings.dry_base, settings.dry_allowed_length, 500)
            return library.llama_sampler_init_dry(vocabulary, *how, breakers, 4)
        if name in PENALTIES:
            penalties = [1.0, 0.0, 0.0]
            penalties[PENALTIES.index(name)] = value
            return library.llama_sampler_init_penalties(SIZE, 500, *penalties)
        if name == "xtc":
            return library.llama_sampler_init_xtc(1.0, settings.xtc_threshold, 1, 0)
        short = {"temperature": "temp", "typical_p": "typical"}.get(name, name)
        keep = [1] if name in ("top_p", "min_p", "typical_p") else []
        return getattr(library, f"llama_sampler_init_{short}")(value, *keep)

    def probs(self, settings: SamplingSettings, logits: list[float], ids: list[int]) -> list[float]:
        """The probabilities after the settings' samplers in turn."""
        library = self.library
        data = (library.llama_token_data * SIZE)(*((i, x, 0.0) for i, x in enumerate(logits)))
        array = library.llama_token_data_array(data, SIZE, -1, False)
        for name in settings.samplers:
            sampler = self.sampler(name, settings)
            for token_id in ids:
                library.llama_sampler_accept(sampler, token_id)
            library.llama_sampler_apply(sampler, ctypes.byref(array))
        left = {array.data[i].id: array.data[i].logit for i in range(array.size)}
        scores = torch.tensor([left.get(i, -torch.inf) for i in range(SIZE)])
        return torch.softmax(scores.double(), dim=-1).tolist()


SIZE = 49152  # SmolLM2's vocabulary
VALUES: dict[str, dict[str, float]] = {
    "repetition_penalty": {"repetition_penalty": 1.3},
    "frequency_penalty": {"frequency_penalty": 0.8},
    "presence_penalty": {"presence_penalty": 1.2},
    "dry": {"dry_multiplier": 0.8, "dry_allowed_length": 1},
    "top_n_sigma": {"top_n_sigma": 3.5},
    "top_k": {"top_k": 60},
    "typical_p": {"typical_p": 0.8},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.05},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.005},
    "temperature": {"temperature": 0.7},
}


@pytest.mark.slow
def test_llama_cpp_on_the_same_logits() -> None:
    llama_cpp, model = LlamaCpp(), load_language_model(LoadOptions(dtype="float32"))
    text = 'The cat sat. "The cat sat on: the cat sat on the mat, the cat sat'
    ids = list(model.tokenizer.encode(text, special=False).ids)
    logits = CachedModel(model).next_logits(ids)
    flat = logits + torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
    for samplers in (*((name,) for name in VALUES), tuple(VALUES), tuple(reversed(VALUES))):
        values: Any = {key: value for name in samplers for key, value in VALUES[name].items()}
        settings = SamplingSettings(greedy=False, seed=0, samplers=samplers, **values)
        changed = False
        for scores in (logits, flat):
            # All tokens count as generated, since llama.cpp counts the prompt's too.
            filters = [f for f in build_filters(settings, model, []) if f.name in samplers]
            assert [f.name for f in filters] == list(samplers)
            ours = torch.softmax(apply_filters(scores, ids, filters).double(), dim=-1)
            theirs = torch.tensor(llama_cpp.probs(settings, scores.tolist(), ids)).double()
            assert torch.equal(ours > 0, theirs > 0), samplers
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
            before = torch.softmax(scores.double(), dim=-1)
            changed |= not torch.allclose(ours, before, atol=1e-6)
        assert changed, samplers
