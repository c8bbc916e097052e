"""SmolLM2 with its hidden states rotated: float32 computes the same, with weights that lie on no
grid of 4 bits. Those of the embedded file do, so that they say little about other models."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import gguf
import torch
from safetensors.torch import save_file

from hftool.models.local_files import load_tokenizer
from hftool.models.references import GgufFile, resolve_reference
from hftool.nn.weights import weights_of_blocks
from hftool.options.model import SourceOptions
from tests.benchmarks.random_model import MATRICES, NORMS

READERS = {  # of each norm: the matrices that read what it returns
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
WRITERS = ("self_attn.o_proj", "mlp.down_proj")
# Of the file: written anew.
OWN_FIELDS = ("general.architecture", "general.file_type", "general.quantization_version")


def save_rotated_model(folder: Path) -> Path:
    """Write the model as transformers does; return the same in GGUF, in float32."""
    source = load_tokenizer("smollm2", SourceOptions(offline=True)).folder
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    config = json.loads((source / "config.json").read_text("utf-8"))
    own = config | {"tie_word_embeddings": False, "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(own), "utf-8")
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    weights = _rotated(weights_of_blocks(source, torch.float64), layers)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    kinds = [(name, gguf_name) for name, gguf_name, _, _ in MATRICES] + [*NORMS]
    names = {
        f"model.layers.{i}.{name}.weight": f"blk.{i}.{gguf_name}.weight"
        for i in range(layers)
        for name, gguf_name in kinds
    }
    names |= {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight"}
    names["model.norm.weight"] = "output_norm.weight"
    for name, weight in weights.items():  # llama.cpp pairs neighbours where it rotates a head
        for kind, count in (("q_proj", heads), ("k_proj", config["num_key_value_heads"])):
            if kind in name:
                halves = weight.view(count, 2, -1, weight.shape[1])
                weights[name] = halves.transpose(1, 2).reshape(weight.shape)
    return _save_gguf({names[name]: weight for name, weight in weights.items()}, folder)


def _rotated(weights: Mapping[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """Fold the norms' weights into the matrices that read them, and rotate the states between."""
    changed = dict(weights)
    size = changed["model.norm.weight"].shape[0]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(size, size, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(drawn).Q
    embeddings = changed["model.embed_tokens.weight"]
    changed["lm_head.weight"] = embeddings * changed["model.norm.weight"] @ rotation
    changed["model.embed_tokens.weight"] = embeddings @ rotation
    changed["model.norm.weight"] = torch.ones(size)
    for layer in (f"model.layers.{i}." for i in range(layers)):
        for norm, readers in READERS.items():
            factors = changed[f"{layer}{norm}.weight"]
            for name in (f"{layer}{reader}.weight" for reader in readers):
                changed[name] = changed[name] * factors @ rotation
            changed[f"{layer}{norm}.weight"] = torch.ones(size)
        for name in (f"{layer}{writer}.weight" for writer in WRITERS):
            changed[name] = rotation.T @ changed[name]
    return {name: weight.float().contiguous() for name, weight in changed.items()}


def _save_gguf(weights: Mapping[str, torch.Tensor], folder: Path) -> Path:
    source = resolve_reference("smollm2")
    assert isinstance(source, GgufFile)
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    for field in gguf.GGUFReader(source.path).fields.values():
        if not field.name.startswith("GGUF.") and field.name not in OWN_FIELDS:
            kind, inner = field.types[0], field.types[-1]
            is_array = kind == gguf.GGUFValueType.ARRAY
            writer.add_key_value(field.name, field.contents(), kind, inner if is_array else None)
    writer.add_file_type(0)
    for name, weight in weights.items():
        writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
