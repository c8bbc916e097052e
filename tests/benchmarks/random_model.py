"""A model of about a billion random weights, for transformers and for llama.cpp."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save_file

from hftool.models.local_files import load_tokenizer
from hftool.models.references import GgufFile, resolve_reference
from hftool.options.model import SourceOptions

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_SIZE = 2048, 8192, 16, 32, 8, 64
VOCABULARY = 49152  # the tokenizer is SmolLM2's
# Of each layer: transformers' and GGUF's name, outputs and inputs.
MATRICES = (
    ("self_attn.q_proj", "attn_q", HIDDEN, HIDDEN),
    ("self_attn.k_proj", "attn_k", KV_HEADS * HEAD_SIZE, HIDDEN),
    ("self_attn.v_proj", "attn_v", KV_HEADS * HEAD_SIZE, HIDDEN),
    ("self_attn.o_proj", "attn_output", HIDDEN, HIDDEN),
    ("mlp.gate_proj", "ffn_gate", INNER, HIDDEN),
    ("mlp.up_proj", "ffn_up", INNER, HIDDEN),
    ("mlp.down_proj", "ffn_down", HIDDEN, INNER),
)
NORMS = (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"))


def save_random_model(folder: Path) -> Path:
    """Write a Llama of 1.07 billion weights as transformers does; return the same in GGUF."""
    source = load_tokenizer("smollm2", SourceOptions(offline=True)).folder
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    config = json.loads((source / "config.json").read_text("utf-8"))
    config |= {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS}
    config |= {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}
    config |= {"head_dim": HEAD_SIZE, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    weights, names = _weights()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer)
    for name, gguf_name in names.items():
        weight = weights[name].float() if weights[name].dim() == 1 else weights[name].half()
        writer.add_tensor(gguf_name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _weights() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the weights by name, and GGUF's names."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.02).bfloat16()

    ones = torch.ones(HIDDEN, dtype=torch.bfloat16)
    weights = {"model.embed_tokens.weight": drawn(VOCABULARY, HIDDEN), "model.norm.weight": ones}
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        for name, gguf_name, *shape in MATRICES:
            weights[f"{layer}{name}.weight"] = drawn(*shape)
            names[f"{layer}{name}.weight"] = f"blk.{i}.{gguf_name}.weight"
        for name, gguf_name in NORMS:
            weights[f"{layer}{name}.weight"] = ones.clone()
            names[f"{layer}{name}.weight"] = f"blk.{i}.{gguf_name}.weight"
    return weights, names


def _describe(writer: Any) -> None:
    source = resolve_reference("smollm2")
    assert isinstance(source, GgufFile)
    reader: Any = gguf.GGUFReader(str(source.path))
    for key, field in reader.fields.items():
        if key.startswith("tokenizer.ggml."):
            if field.types[0] == gguf.GGUFValueType.ARRAY:
                writer.add_array(key, field.contents())
            else:
                writer.add_key_value(key, field.contents(), field.types[0])
    writer.add_block_count(LAYERS)
    writer.add_context_length(8192)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_rope_freq_base(1e5)
    writer.add_layer_norm_rms_eps(1e-5)
