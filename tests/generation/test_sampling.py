"""Filters and draws, compared with numbers computed by hand and with transformers' own order."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from hftool.errors import HftoolError, UsageError
from hftool.generation.drawing import Draw, Sampler, check_finite
from hftool.generation.resolution import DEFAULT_TOP_K, resolve_sampling
from hftool.generation.sampling import (
    SamplingSettings,
    apply_filters,
    apply_filters_in_turn,
    own_filters,
)
from hftool.options.sampling import SamplingOptions
from tests.conftest import run
from tests.tiny_models import VOCABULARY, save_model, transformers_model

PROBS = [0.15, 0.5, 0.05, 0.3]  # best first: ids 1, 3, 0, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"))


def after(settings: SamplingSettings, ids: list[int] | None = None) -> list[float]:
    """Return the probabilities that the filters make of PROBS."""
    scores = apply_filters(torch.tensor(PROBS).log(), ids or [], own_filters(settings))
    return torch.softmax(scores, dim=-1).tolist()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        # square roots: .387298, .707107, .223607, .547723; their sum 1.865735
        ("temperature", 2.0, [0.207585, 0.378997, 0.119849, 0.293569]),
        # squares: .0225, .25, .0025, .09; their sum .365
        ("temperature", 0.5, [0.061644, 0.684932, 0.006849, 0.246575]),
        ("top_k", 1, [0, 1, 0, 0]),
        ("top_k", 2, [0, 0.625, 0, 0.375]),
        ("top_k", 9, PROBS),
        ("top_p", 0.4, [0, 1, 0, 0]),
        ("top_p", 0.75, [0, 0.625, 0, 0.375]),
        ("top_p", 0.9, [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95]),
        ("top_p", 0.0, [0, 1, 0, 0]),
        # at least 0.2 * 0.5 = 0.1
        ("min_p", 0.2, [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95]),
        ("min_p", 0.5, [0, 0.625, 0, 0.375]),
        # entropy 1.1421 nats; surprisals 1.8971, 0.6931, 2.9957, 1.2040: id 3 is the most typical
        ("typical_p", 0.2, [0, 0, 0, 1]),
        ("typical_p", 0.6, [0, 0.625, 0, 0.375]),
    ],
)
def test_filter_by_hand(name: str, value: float, expected: list[float]) -> None:
    settings = SamplingSettings(greedy=False, seed=0, **{name: value})  # type: ignore[arg-type]
    assert len(own_filters(settings)) == 1
    assert after(settings) == pytest.approx(expected, abs=1e-5)


def test_neutral_settings_filter_nothing() -> None:
    settings = SamplingSettings(greedy=False, seed=0)
    assert own_filters(settings) == []
    assert after(settings) == pytest.approx(PROBS)


def test_repetition_penalty_by_hand() -> None:
    settings = SamplingSettings(greedy=True, seed=None, repetition_penalty=2.0)
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0])
    scores = apply_filters(logits, [0, 3, 3], own_filters(settings))
    assert scores.tolist() == [1.0, 1.0, 0.5, -2.0]  # divided above 0, multiplied below; once


def test_no_repeat_ngram_by_hand() -> None:
    settings = SamplingSettings(greedy=True, seed=None, no_repeat_ngram_size=2)
    scores = apply_filters(torch.zeros(4), [1, 2, 0, 1], own_filters(settings))
    assert scores.tolist() == [0, 0, -torch.inf, 0]  # "1 2" has occurred


def test_each_token_is_removed_by_the_first_filter_that_rejects_it() -> None:
    settings = SamplingSettings(greedy=False, seed=0, top_k=3, top_p=0.75, min_p=0.99)
    after = apply_filters_in_turn(torch.tensor(PROBS).log(), [0], own_filters(settings))
    kept = {name: (scores > -torch.inf).nonzero()[:, 0].tolist() for name, scores in after}
    # top-k leaves .526, .316, .158; top-p removes the last of these, min-p all but the first
    assert kept == {"top_k": [0, 1, 3], "top_p": [1, 3], "min_p": [1]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # temperature 0.5: the squares .0225, .25, .0025, .09 over their sum .365
        (
            {"temperature": 0.5, "top_k": 3, "top_p": 0.9},
            {
                "temperature": [0.061644, 0.684932, 0.006849, 0.246575],
                "top_k": [0.062069, 0.689655, 0, 0.248276],  # over .3625
                "top_p": [0, 0.735294, 0, 0.264706],  # .9379 of it are the best two: over .34
            },
        ),
        # tokens 1 and 2 have occurred: .5 squared, .05 squared; the sum of all is .7025
        (
            {"repetition_penalty": 2.0, "min_p": 0.6},
            {
                "repetition_penalty": [0.213523, 0.355872, 0.003559, 0.427046],
                "min_p": [0, 0.454545, 0, 0.545455],  # at least .6 of the best: .256228
            },
        ),
        # "2 1" has occurred; the entropy is .8979 nats; 1.2040 is off by .3061, .5108 by .3871
        (
            {"no_repeat_ngram_size": 2, "typical_p": 0.5},
            {
                "no_repeat_ngram": [0.3, 0, 0.1, 0.6],
                "typical_p": [0.333333, 0, 0, 0.666667],
            },
        ),
    ],
)
def test_each_stage_by_hand(settings: dict[str, Any], expected: dict[str, list[float]]) -> None:
    chain = own_filters(SamplingSettings(greedy=False, seed=0, **settings))
    found = list(apply_filters_in_turn(torch.tensor(PROBS).log(), [2, 1, 2], chain))
    assert [name for name, _ in found] == list(expected)
    for name, scores in found:
        assert torch.softmax(scores, dim=-1).tolist() == pytest.approx(expected[name], abs=1e-5)


ALL: dict[str, Any] = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.02,
    "typical_p": 0.8,
}


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return transformers_model(folder)


def transformers_config(**settings: Any) -> Any:
    return GenerationConfig(**settings)  # type: ignore[no-untyped-call]


def transformers_chain(reference: Any, settings: dict[str, Any]) -> Any:
    """Return the processors that `generate` would apply."""
    config = transformers_config(do_sample=True, num_beams=1, **settings)
    return reference._get_logits_processor(config, input_ids_seq_length=6)


def test_order_is_that_of_transformers(reference: Any) -> None:
    theirs = transformers_chain(reference, ALL)
    ours = own_filters(SamplingSettings(greedy=False, seed=0, **ALL))
    assert [type(f.processor) for f in ours] == [type(p) for p in theirs]
    assert [f.name for f in ours] == [name.removesuffix("_size") for name in ALL]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_results_are_those_of_transformers(count: int, reference: Any) -> None:
    generator = torch.Generator().manual_seed(count)
    for names in itertools.combinations(ALL, count):
        settings = {name: ALL[name] for name in names}
        theirs = transformers_chain(reference, {"top_k": 0, **settings})
        ours = own_filters(SamplingSettings(greedy=False, seed=0, **settings))
        logits = torch.randn(VOCABULARY, generator=generator) * 3
        ids = torch.randint(VOCABULARY, (6,), generator=generator).tolist()
        ids[0], ids[-1] = 5, 5
        scores = apply_filters(logits, ids, ours)
        expected = theirs(torch.tensor([ids]), logits[None].clone())[0]
        assert torch.equal(scores, expected), names


def explained(probs: list[float], drawn: float) -> int:
    """Return the most probable token whose cumulative probability exceeds the number."""
    total = 0.0
    for token_id in sorted(range(len(probs)), key=lambda i: (-probs[i], i)):
        total += probs[token_id]
        if total > drawn:
            return token_id
    raise AssertionError(f"{drawn} is beyond all probabilities")


def test_number_drawn_explains_the_token() -> None:
    probs = [0.125, 0.5, 0.0, 0.25, 0.125]
    sampler = Sampler(seed=11)
    draws = [sampler.draw(torch.tensor(probs)) for _ in range(4000)]
    assert all(0 <= draw.uniform < 1 for draw in draws)
    assert [draw.id for draw in draws] == [explained(probs, draw.uniform) for draw in draws]
    counts = Counter(draw.id for draw in draws)
    for token_id, prob in enumerate(probs):
        deviation = (4000 * prob * (1 - prob)) ** 0.5
        assert abs(counts[token_id] - 4000 * prob) <= 4 * deviation


def test_seed_decides_the_draws() -> None:
    def draws(seed: int) -> list[Draw]:
        sampler = Sampler(seed)
        return [sampler.draw(torch.tensor(PROBS)) for _ in range(50)]

    assert draws(7) == draws(7)
    assert draws(7) != draws(8)


def test_largest_seed() -> None:
    assert Sampler(2**63 - 1).draw(torch.tensor([0.0, 1.0])).id == 1


def test_options_go_before_generation_config() -> None:
    config = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.1}
    asked = SamplingOptions(top_k=0, temperature=1.5, seed=4)
    assert resolve_sampling(asked, config) == SamplingSettings(
        greedy=False, seed=4, temperature=1.5, top_k=0, top_p=0.95, repetition_penalty=1.1
    )


def test_without_options_or_config_transformers_defaults_hold() -> None:
    settings = resolve_sampling(SamplingOptions(seed=4), {"top_k": None, "eos_token_id": 2})
    assert settings == SamplingSettings(greedy=False, seed=4, top_k=DEFAULT_TOP_K)
    assert transformers_config()._get_default_generation_params()["top_k"] == DEFAULT_TOP_K


@pytest.mark.parametrize(
    ("options", "greedy"),
    [
        (SamplingOptions(), True),
        (SamplingOptions(repetition_penalty=1.2), True),
        (SamplingOptions(temperature=0.7), False),
        (SamplingOptions(top_k=5), False),
        (SamplingOptions(seed=5), False),
        (SamplingOptions(seed=5, greedy=True), True),
    ],
)
def test_config_without_sampling_is_greedy_until_sampling_is_asked_for(
    options: SamplingOptions, greedy: bool
) -> None:
    assert resolve_sampling(options, {"do_sample": False}).greedy is greedy


@pytest.mark.parametrize("penalty", [0.0, -1.0])
def test_impossible_repetition_penalty(penalty: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        resolve_sampling(SamplingOptions(repetition_penalty=penalty), {})


@pytest.mark.parametrize("logits", [[0.0, torch.nan], [-torch.inf] * 2])
def test_numbers_that_are_none(logits: list[float]) -> None:
    with pytest.raises(HftoolError, match=r"not numbers \(in float16\)") as caught:
        check_finite(torch.tensor(logits), torch.float16)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("try --dtype float32; if that does not help")
    with pytest.raises(HftoolError) as caught:
        check_finite(torch.tensor(logits), torch.float32)
    assert caught.value.hint == "its weights may be broken: use another checkpoint"


def test_excluded_tokens_are_no_error() -> None:
    check_finite(torch.tensor([0.0, -torch.inf]), torch.float32)


def sample(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    result = run(
        *("sample", "-m", str(folder), "ab", "--dtype", "float32", "--steps", "8", "--json"),
        *arguments,
    )
    assert result.exit_code == 0, result.stderr
    records: list[dict[str, Any]] = json.loads(result.stdout)
    return records


def ids_of(steps: list[dict[str, Any]]) -> list[int]:
    return [step["id"] for step in steps]


def test_same_seed_same_text_and_other_seeds_others(folder: Path) -> None:
    texts = {seed: ids_of(sample(folder, "--seed", str(seed))) for seed in range(4)}
    assert ids_of(sample(folder, "--seed", "0")) == texts[0]
    assert len({tuple(ids) for ids in texts.values()}) == 4


@pytest.mark.parametrize("temperature", ["0", "1e-40"])
def test_temperature_zero_is_greedy(temperature: str, folder: Path) -> None:
    steps = sample(folder, "--temperature", temperature, "--seed", "3")
    assert steps == sample(folder, "--greedy")
    assert {(step["rank"], step["drawn"]) for step in steps} == {(1, None)}


def test_generation_config_of_the_model_holds(tmp_path: Path) -> None:
    folder = save_model(tmp_path, generation_config={"top_k": 3, "temperature": 0.5})
    probs = sample(folder, "--seed", "1", "-k", "3")[0]["candidates"]
    squares = [c["prob"] ** 2 for c in probs]
    expected = [square / sum(squares) for square in squares]
    assert [c["sampled_prob"] for c in probs] == pytest.approx(expected, rel=1e-4)
    assert {step["kept"] for step in sample(folder, "--seed", "1")} == {3}
    assert {step["kept"] for step in sample(folder, "--seed", "1", "--top-k", "5")} == {5}
    assert {step["kept"] for step in sample(folder, "--seed", "1", "--top-k", "0")} == {VOCABULARY}


def test_do_sample_false_of_the_model_holds(tmp_path: Path, folder: Path) -> None:
    frozen = save_model(tmp_path, generation_config={"do_sample": False, "top_k": 3})
    assert ids_of(sample(frozen)) == ids_of(sample(folder, "--greedy"))
    assert {step["kept"] for step in sample(frozen, "--temperature", "0.9")} == {3}


def test_least_temperature_draws_the_best(folder: Path) -> None:
    steps = sample(folder, "--temperature", "1e-6", "--seed", "3")
    assert ids_of(steps) == ids_of(sample(folder, "--greedy"))
    assert {step["sampled_prob"] for step in steps} == {1.0}
    assert all(step["drawn"] is not None for step in steps)


def test_drawn_seed_is_in_the_record_and_repeats_the_run(folder: Path) -> None:
    def generate(*arguments: str) -> dict[str, Any]:
        result = run(
            *("generate", "-m", str(folder), "ab", "--dtype", "float32", "-n", "9", "--json"),
            *arguments,
        )
        record: dict[str, Any] = json.loads(result.stdout)[0]
        return record

    first, second = generate(), generate()
    assert first["seed"] != second["seed"]
    assert first["text"] != second["text"]
    assert generate("--seed", str(first["seed"]))["text"] == first["text"]
    assert generate("--greedy")["seed"] is None


@pytest.mark.parametrize(
    "option", ["--temperature=nan", "--length-penalty=1e9", "--repetition-penalty=nan"]
)
def test_an_option_without_a_meaning(option: str, folder: Path) -> None:
    done = run("generate", "-m", str(folder), "ab", "--num-beams", "2", option)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {option.partition('=')[0]} must be ")


@pytest.mark.parametrize(
    "config", [{"min_p": 3.0}, {"top_k": "many"}, {"temperature": -1}, {"repetition_penalty": []}]
)
def test_a_generation_config_no_filter_takes_is_an_error(config: dict[str, Any]) -> None:
    with pytest.raises(HftoolError, match="generation_config") as caught:
        resolve_sampling(SamplingOptions(), config)
    assert caught.value.status == 1
    assert caught.value.hint
