"""Make a converted copy, as a process of its own: `python -m hftool.models.conversion JOB`.

JOB is JSON: {"kind": …, "source": PATH, "target": FOLDER, "adapter": FOLDER, "adapters": […]}. The
process ends with status 0, or with status 1 and the cause as the last line of stderr.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hftool.errors import HftoolError
from hftool.json_files import not_the_file, read_json
from hftool.models.adapters import merge_adapters
from hftool.models.checkpoints import weights_problem
from hftool.models.gguf_config import ROPE_TENSORS, complete_config, unused_tensors
from hftool.models.gguf_reader import GgufHeader, read_header, read_numbers
from hftool.models.gguf_tokenizer import GgufTokenizer
from hftool.models.gguf_weights import BlockWriter, is_newer_kind, pack, read_weights
from hftool.models.references import gguf_parts
from hftool.models.tokenizer_conversion import convert_tokenizer
from hftool.models.validation import require_fitting
from hftool.nn.architectures import GGUF_CONFIG_KEYS

LABELS = ("NEGATIVE", "POSITIVE")


def merge_adapter(source: Path, adapter: Path, target: Path) -> None:
    """Add the low-rank factors of a LoRA adapter to MiniLM's matrices: W + B·A·alpha/r.

    `adapter` is a folder in the format of the peft library.
    """
    settings = read_json(adapter / "adapter_config.json")
    scale = settings["lora_alpha"] / settings["r"]
    base = load_file(source / "model.safetensors")
    base.pop("embeddings.position_ids", None)
    weights = {f"bert.{name}": tensor for name, tensor in base.items()}
    factors = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in factors.items():
        plain = name.removeprefix("base_model.model.")
        if plain.endswith(".lora_B.weight"):
            matrix = plain.removesuffix(".lora_B.weight")
            a = factors[f"base_model.model.{matrix}.lora_A.weight"].astype(np.float32)
            weights[f"{matrix}.weight"] += scale * (tensor.astype(np.float32) @ a)
        elif not plain.endswith(".lora_A.weight"):
            weights[plain] = tensor.astype(np.float32)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config = read_json(source / "config.json") | {
        "architectures": ["BertForSequenceClassification"],
        "dtype": "float32",
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: i for i, label in enumerate(LABELS)},
    }
    _write_json(target / "config.json", config)
    # The sentence encoder's limit of 128 tokens does not apply to the classifier.
    tokenizer = read_json(source / "tokenizer.json") | {"truncation": None, "padding": None}
    _write_json(target / "tokenizer.json", tokenizer)
    for name in ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (target / name).write_bytes((source / name).read_bytes())


def convert_gguf(source: Path, target: Path, *, weights: bool) -> None:
    """Write the config, the tokenizer and, with `weights`, the weights of a GGUF file.

    Raises:
        HftoolError, ValueError, or what transformers raises: the file is broken or unknown.
    """
    header = _gguf_header(source)
    _write_gguf_tokenizer(header, target)
    if not weights:
        _write_json(target / "config.json", {"vocab_size": header.rows} if header.rows else {})
        return
    with _in_one_file(source, target) as file:
        model = _write_gguf_weights(file, target)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.save_pretrained(target)
    model.generation_config.save_pretrained(target)
    path = target / "generation_config.json"
    _write_json(path, read_json(path) | _gguf_generation_config(header))


def _write_gguf_weights(file: Path, target: Path) -> Any:
    """Write the weights of a GGUF file, all of them.

    Returns: the model, without its weights.

    Raises:
        ValueError: the file lacks a weight, or has something that the model has no place for.
    """
    import transformers

    header = read_header(file)
    names = [tensor.name for tensor in header.tensors]
    config = _gguf_config(file, header)
    is_pair = config.is_encoder_decoder
    auto: Any = transformers.AutoModelForSeq2SeqLM if is_pair else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    if is_newer_kind(header):
        writer, info = _read_whole(file, auto, config, target)
    else:
        writer = read_weights(file, model)
        info = _check_shapes(writer, type(model), config)
    _fill_output_biases(writer, info, names)
    if problem := weights_problem(info):
        raise ValueError(f"it {problem}")
    if unused := sorted({*unused_tensors(model, header), *info["unexpected_keys"]}):
        raise ValueError(
            f"it has {len(unused)} tensors that its model has no place for, such as {unused[0]}"
        )
    writer.write(target / "model.safetensors")
    return model


def _gguf_config(file: Path, header: GgufHeader) -> Any:
    """Return the configuration of a GGUF file, with all that it states."""
    import transformers

    auto: Any = transformers.AutoConfig
    try:
        config = auto.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    except (AttributeError, TypeError) as error:
        kind = header.metadata["general.architecture"]
        raise ValueError(f"transformers fails on the architecture {kind}: {error}") from None
    if config.model_type == "mistral":  # transformers can't map the names of a file of this name
        keys = {name: value for name, value in config.to_dict().items() if name != "model_type"}
        config = transformers.LlamaConfig(**keys)
    names = [tensor.name for tensor in header.tensors]
    factors = {t.name: read_numbers(file, t) for t in header.tensors if t.name in ROPE_TENSORS}
    complete_config(config, header.metadata, names, header.rows, factors)
    return config


def _read_whole(
    file: Path, auto: Any, config: Any, target: Path
) -> tuple[BlockWriter, dict[str, Any]]:
    """Return the weights that transformers reads from a whole file, and what it says of them."""
    model, info = auto.from_pretrained(
        file.parent,
        gguf_file=file.name,
        config=config,
        dtype="float32",
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are reported
    )
    # transformers refuses to save plain weights of a model that is marked as quantized.
    model.hf_quantizer = None
    model.config.__dict__.pop("quantization_config", None)
    model.save_pretrained(target)
    saved = sorted(target.glob("*.safetensors"))
    writer = pack({n: w for path in saved for n, w in load_file(path).items()}, file)
    for path in (*saved, *target.glob("*.index.json")):
        path.unlink()
    return writer, info


def _check_shapes(writer: BlockWriter, model_class: Any, config: Any) -> dict[str, Any]:
    """Return what transformers says of loading weights of these names and shapes."""
    empty = {name: torch.empty(s, device="meta") for name, s in writer.shapes().items()}
    _, info = model_class.from_pretrained(
        None,
        config=config,
        state_dict=empty,
        device_map="meta",
        dtype="float32",
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are reported
    )
    return dict(info)


def _fill_output_biases(writer: BlockWriter, info: dict[str, Any], names: Sequence[str]) -> None:
    """Add biases of zeros that a model has only because others of its attention are in the file."""
    for name in [n for n in info["missing_keys"] if n.endswith("self_attn.o_proj.bias")]:
        number = name.split(".layers.")[1].split(".")[0]
        if f"blk.{number}.attn_q.bias" in names:
            size = writer.shapes()[name.replace("bias", "weight")][0]
            writer.tensors[name] = torch.zeros(size)
            info["missing_keys"].remove(name)


def _gguf_header(source: Path) -> GgufHeader:
    """Read the header of a GGUF file, or of a model in several, after checking that it fits them.

    transformers would take seconds to notice that a file is cut off, and forever to build a model
    far larger than the file.

    Raises:
        ValueError, HftoolError: the header is broken, or describes a larger model.
    """
    headers = [_header_of_one(part) for part in gguf_parts(source)]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    header = replace(headers[0], tensors=tensors)
    counts = {name.rpartition(".")[2]: value for name, value in header.metadata.items()}
    config = {ours: counts.get(theirs) for theirs, ours in GGUF_CONFIG_KEYS.items()}
    config["vocab_size"] = len(counts.get("tokens") or ())
    total = sum(math.prod(tensor.shape) for tensor in tensors)
    require_fitting(config, len(tensors), total, "its header")
    return header


def _header_of_one(path: Path) -> GgufHeader:
    try:
        header = read_header(path)
        if header.data_end > path.stat().st_size:
            raise ValueError("its tensors are beyond its end")
    except ValueError as error:
        if problem := not_the_file(path):
            raise HftoolError(*problem) from None
        raise ValueError(f"it is cut off or not a GGUF file ({error})") from None
    return header


@contextmanager
def _in_one_file(source: Path, target: Path) -> Iterator[Path]:
    """Give the path of a file with all tensors of a model, which may be in several files."""
    parts = gguf_parts(source)
    if len(parts) == 1:
        yield source
        return
    from gguf import GGUFReader, GGUFWriter

    readers = [GGUFReader(part) for part in parts]
    merged = target / "merged.gguf"
    writer = GGUFWriter(merged, readers[0].fields["general.architecture"].contents())
    for name, field in readers[0].fields.items():
        if not name.startswith(("GGUF.", "split.")) and name != "general.architecture":
            writer.add_key_value(
                name, field.contents(), field.types[0], *field.types[-1:][: len(field.types) - 1]
            )
    for tensor in (tensor for reader in readers for tensor in reader.tensors):
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    try:
        yield merged
    finally:
        merged.unlink()


def _write_gguf_tokenizer(header: GgufHeader, target: Path) -> None:
    tokenizer = GgufTokenizer(header.metadata)
    tokenizer.build().save(str(target / "tokenizer.json"))
    config = tokenizer.config()
    template = config.get("chat_template")
    if isinstance(template, str):
        (target / "chat_template.jinja").write_text(template, encoding="utf-8")
        del config["chat_template"]
    _write_json(target / "tokenizer_config.json", config)


def _gguf_generation_config(header: GgufHeader) -> dict[str, Any]:
    """Return what a GGUF file states about the end of a text and forbidden tokens."""
    tokenizer = GgufTokenizer(header.metadata)
    ends = tokenizer.end_ids()
    config: dict[str, Any] = {"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {}
    if suppressed := tokenizer.setting("suppress_tokens"):
        config["suppress_tokens"] = suppressed
    return config


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Do the job in the first argument."""
    job = json.loads(sys.argv[1])
    source, target = Path(job["source"]), Path(job["target"])
    try:
        if job["kind"] == "minilm-sst2":
            merge_adapter(source, Path(job["adapter"]), target)
        elif job["kind"] == "adapted":
            merge_adapters(source, [(Path(path), scale) for path, scale in job["adapters"]], target)
        elif job["kind"] == "tokenizer":
            convert_tokenizer(source, target)
        else:
            convert_gguf(source, target, weights=job["kind"] == "gguf")
    except (
        *(SafetensorError, OSError, ValueError, KeyError, IndexError, ImportError, RuntimeError),
        *(HftoolError, MemoryError, OverflowError),
    ) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        print(f"it has no {cause}" if isinstance(error, KeyError) else cause, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
