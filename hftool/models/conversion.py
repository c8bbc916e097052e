"""Make a converted copy, as a process of its own: `python -m hftool.models.conversion JOB`.

JOB is JSON: {"kind": …, "source": PATH, "target": FOLDER, "adapter": FOLDER}. The process ends with
status 0, or with status 1 and the cause as the last line of stderr.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.models.validation import require_fitting
from hftool.nn.architectures import GGUF_CONFIG_KEYS

LABELS = ("NEGATIVE", "POSITIVE")
CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL


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
    """Write the config, the tokenizer and, with `weights`, the weights (float32) of a GGUF file.

    Raises:
        HftoolError, ValueError, or what transformers raises: the file is broken or unknown.
    """
    fields = _gguf_fields(source)
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    file: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **file)
    _restore_gguf_tokenizer(fields, tokenizer.backend_tokenizer)
    tokenizer.save_pretrained(target)
    if not weights:
        AutoConfig.from_pretrained(source.parent, **file).save_pretrained(target)
        return
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source.parent,
        dtype="float32",
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are reported below
        **file,
    )
    model, info = loaded
    if problem := weights_problem(info):
        raise ValueError(f"it {problem}")
    # transformers refuses to save plain weights of a model that is marked as quantized.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(target)


def weights_problem(info: dict[str, Any]) -> str | None:
    """Return what is wrong with a file's weights: some are missing, or have another shape. None if
    all are as expected.

    transformers would load such weights as random numbers. `info` is what it returns for
    `output_loading_info`.
    """
    if missing := sorted(info["missing_keys"]):
        return f"lacks {len(missing)} of the model's weights, such as {missing[0]}"
    if mismatched := sorted(info["mismatched_keys"]):
        name, shape, expected = mismatched[0]
        return f"has {name} in the shape {list(shape)}, not {list(expected)} as its config says"
    return None


def _gguf_fields(source: Path) -> dict[str, Any]:
    """Return the values in a GGUF file's header, after checking that they fit the file.

    transformers would take seconds to notice that a file is cut off, and forever to build a model
    far larger than the file.

    Raises:
        ValueError, HftoolError: the header is broken, or describes a larger model.
    """
    from hftool.models.gguf_reader import BoundedReader

    try:
        reader = BoundedReader(source)
        fields: dict[str, Any] = dict(reader.fields)
        counts = {name.rpartition(".")[2]: f.contents() for name, f in fields.items() if f.data}
    except Exception as error:  # the reader trusts a file's numbers, so they can raise anything
        raise ValueError(f"it is cut off or not a GGUF file ({error})") from None
    config = {ours: counts.get(theirs) for theirs, ours in GGUF_CONFIG_KEYS.items()}
    config["vocab_size"] = len(counts.get("tokens") or ())
    total = sum(int(tensor.n_elements) for tensor in reader.tensors)
    require_fitting(config, len(reader.tensors), total, "its header")
    return fields


def _restore_gguf_tokenizer(fields: dict[str, Any], backend: Any) -> None:
    """Add what transformers leaves out of a GGUF file's tokenizer.

    Every control token is a special token, and the `smollm` pre-tokenizer splits numbers into
    digits, as in llama.cpp and in SmolLM2's own tokenizer.json.
    """
    from tokenizers import AddedToken, pre_tokenizers

    def value(name: str) -> Any:
        return fields[name].contents() if name in fields else None

    tokens = value("tokenizer.ggml.tokens") or []
    kinds = value("tokenizer.ggml.token_type") or []
    control = [t for t, kind in zip(tokens, kinds, strict=False) if kind == CONTROL_TOKEN]
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    if value("tokenizer.ggml.pre") == "smollm":
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )


def convert_tokenizer(source: Path, target: Path) -> None:
    """Write tokenizer.json and its settings for a folder that has only older tokenizer files.

    Raises:
        ValueError, or what transformers raises: it can't convert them.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ValueError("its tokenizer is Python code without a tokenizer.json")
    tokenizer.save_pretrained(target)
    if (config := source / "config.json").is_file():  # has the number of embedding rows
        (target / "config.json").write_bytes(config.read_bytes())


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Do the job in the first argument."""
    job = json.loads(sys.argv[1])
    source, target = Path(job["source"]), Path(job["target"])
    try:
        if job["kind"] == "minilm-sst2":
            merge_adapter(source, Path(job["adapter"]), target)
        elif job["kind"] == "tokenizer":
            convert_tokenizer(source, target)
        else:
            convert_gguf(source, target, weights=job["kind"] == "gguf")
    except (
        *(SafetensorError, OSError, ValueError, KeyError, IndexError, ImportError),
        *(HftoolError, MemoryError, OverflowError),
    ) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        print(f"it has no {cause}" if isinstance(error, KeyError) else cause, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
