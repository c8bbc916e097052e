"""The logit lens: transformers' hidden states, put by hand through the final norm and the head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, Gemma2Config, GPT2Config, LlamaConfig, ReformerConfig, T5Config

from tests.conftest import run
from tests.generation.test_sources_and_masks import add_tokens
from tests.tiny_models import END, PAD, SEP, VOCABULARY, save_model, save_tokenizer

PROMPT = "the sun rises"
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY + 1,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "bos_token_id": None,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "initializer_range": 0.3,
}
T5_SIZES: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3},
    **{"num_heads": 4, "pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": SEP},
    "initializer_factor": 3.0,
}
make_t5: Any = T5Config
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(**SIZES, n_positions=64),
    "gemma2": Gemma2Config(
        **SIZES, num_key_value_heads=2, head_dim=8, final_logit_softcapping=4.0, sliding_window=4
    ),
    "bert": BertConfig(**SIZES, max_position_embeddings=64),
    "t5": make_t5(**T5_SIZES),
}
HEADS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "llama": lambda m, h: m.lm_head(m.model.norm(h)),
    "gpt2": lambda m, h: m.lm_head(m.transformer.ln_f(h)),
    "gemma2": lambda m, h: 4.0 * torch.tanh(m.lm_head(m.model.norm(h)) / 4.0),
    "bert": lambda m, h: m.cls(h),
    "t5": lambda m, h: m.lm_head(m.decoder.final_layer_norm(h) * _t5_scale(m)),
}


def _t5_scale(model: Any) -> float:
    tied = model.config.tie_word_embeddings
    return float(model.model_dim) ** -0.5 if tied else 1.0


def saved(name: str, folder: Path) -> Any:
    """Save a random model, and return it."""
    import transformers

    torch.manual_seed(4)
    autos = {"bert": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM"}
    auto: Any = getattr(transformers, autos.get(name, "AutoModelForCausalLM"))
    model = auto.from_config(CONFIGS[name]).eval()
    model.save_pretrained(folder)
    save_tokenizer(folder, framed=name == "bert")
    if name == "bert":
        add_tokens(folder, "[MASK]")
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "mask_token": "[MASK]"}))
    return model


def layers(*arguments: str) -> list[dict[str, Any]]:
    done = run("topk", "--layers", "--json", *arguments)
    assert done.exit_code == 0, done.stderr
    records: list[dict[str, Any]] = json.loads(done.stdout)
    return records


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = saved(name, tmp_path)
    text = "the [MASK]un" if name == "bert" else PROMPT
    records = layers(text, "-m", str(tmp_path), "-k", "5", "--dtype", "float32")
    ids = AutoTokenizer.from_pretrained(tmp_path)(text, return_tensors="pt").input_ids
    begin = {"decoder_input_ids": torch.tensor([[SEP]])} if name == "t5" else {}
    with torch.inference_mode():
        output = model(input_ids=ids, **begin, output_hidden_states=True)
        hidden = output.decoder_hidden_states if name == "t5" else output.hidden_states
        position = records[0]["position"]
        expected = [HEADS[name](model, state[0, position]) for state in hidden[:-1]]
    expected.append(output.logits[0, position])
    assert [record["layer"] for record in records] == [0, 1, 2, 3]
    answer = int(expected[-1].argmax())
    for record, logits in zip(records, expected, strict=True):
        probs = torch.softmax(logits.double(), -1)
        best = probs.topk(5)
        assert [c["id"] for c in record["candidates"]] == best.indices.tolist()
        assert [c["prob"] for c in record["candidates"]] == pytest.approx(
            best.values.tolist(), rel=1e-3
        )
        assert record["answer_id"] == answer
        assert record["answer_prob"] == pytest.approx(float(probs[answer]), rel=1e-3)
        assert record["answer_rank"] == int((probs > probs[answer]).sum()) + 1
    assert ("mask" in records[0]) == (name == "bert")
    assert position == {"bert": 5, "t5": 0}.get(name, len(PROMPT) - 1)


def test_the_last_layer_is_what_topk_shows(smollm2_folder: Path) -> None:
    text = "The capital of France is"
    *_, last = layers(text, "-k", "4")
    assert last["layer"] == 30
    best = json.loads(run("topk", text, "-k", "4", "--json").stdout)
    assert [c["prob"] for c in last["candidates"]] == pytest.approx([c["prob"] for c in best], 1e-4)
    assert [c["id"] for c in last["candidates"]] == [c["id"] for c in best]
    (answer, rank) = last["answer"], last["answer_rank"]
    assert (answer, rank) == (" Paris", 1)


def test_a_target_takes_the_place_of_the_answer(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    *_, last = layers("abc", "-m", str(folder), "--target", "x", "--position", "1")
    asked = ("-k", "1", "--target", "x", "--position", "1", "--json")
    x = json.loads(run("topk", "abc", "-m", str(folder), *asked).stdout)[-1]
    assert (last["answer"], last["position"]) == ("x", 1)
    assert last["answer_rank"] == x["rank"]
    assert last["answer_prob"] == pytest.approx(x["prob"], rel=1e-4)


def test_layers_in_other_formats(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path))
    arguments = ("topk", "ab", "-m", folder, "--layers", "-k", "2", "--format")
    head, *rows = run(*arguments, "csv").stdout.splitlines()
    assert head.startswith("layer,position,rank,id,token,prob,answer_id,answer,")
    assert [row.split(",")[:3] for row in rows[:3]] == [
        *(["0", "1", "1"], ["0", "1", "2"], ["1", "1", "1"])
    ]
    assert run(*arguments, "text").stdout.count("\t") == 3 * 4
    assert "prob and rank are those of " in run(*arguments, "table").stdout


def test_a_model_without_such_layers_is_refused(tmp_path: Path) -> None:
    from transformers import ReformerModelWithLMHead

    torch.manual_seed(1)
    make_config: Any = ReformerConfig
    config = make_config(
        **{"vocab_size": VOCABULARY, "hidden_size": 32, "feed_forward_size": 48},
        **{"attn_layers": ["local"] * 2, "num_attention_heads": 2, "attention_head_size": 16},
        **{"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "is_decoder": True},
        **{"pad_token_id": PAD, "eos_token_id": END, "max_position_embeddings": 64},
    )
    make: Any = ReformerModelWithLMHead
    make(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    done = run("topk", "ab", "-m", str(tmp_path), "--layers")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "has no layers that --layers can read" in done.stderr


@pytest.mark.parametrize("more", [("--position", "all"), ("--top-p", "0.5")])
def test_what_layers_exclude(more: tuple[str, str]) -> None:
    done = run("topk", "ab", "--layers", *more)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: --layers excludes ")
