"""LoRA adapters: what their folders state, and how they are merged into a model's weights."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.models.checkpoints import require_known_quantization, weights_problem
from hftool.models.validation import read_tensor_shapes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of the names of weights
MAX_FLOAT32_NUMBERS = 1 << 30  # a model of up to 4 GB is merged in float32, as it is computed
# Classes by peft's `task_type`; the others are language models.
CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}
TOKENIZER_FILES = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.*", "merges.txt", "spiece.model", "sentencepiece*.model"),
)


def is_adapter(folder: Path) -> bool:
    """Return whether a folder has an adapter, and not a model as well."""
    models = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    return (folder / CONFIG).is_file() and not any((folder / name).is_file() for name in models)


def base_reference(folder: Path) -> tuple[str, str | None]:
    """Return the reference of the model that an adapter is for, and its revision, if any.

    Raises:
        HftoolError: the adapter does not name one.
    """
    config = read_json(folder / CONFIG)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise HftoolError(
            f"{folder} is an adapter that does not name its base model",
            "give that with --model, and this with --adapter",
        )
    return base, revision if isinstance(revision, str) else None


def require_adapter(folder: Path) -> None:
    """Raise an error if a folder has no adapter in safetensors.

    Raises:
        HftoolError: with what it lacks.
    """
    if not (folder / CONFIG).is_file():
        raise HftoolError(f"{folder} is not an adapter: it has no {CONFIG}")
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise HftoolError(
            f"{folder} has no {WEIGHTS}",
            "its weights are pickled; save it again with a newer peft" if pickled else None,
        )


def merge_adapters(base: Path, adapters: Sequence[tuple[Path, float]], target: Path) -> None:
    """Write a model with adapters merged into its weights, as peft merges them.

    Args:
        base: the model's folder.
        adapters: the folders of the adapters, each with what its change is multiplied by.

    Raises:
        HftoolError, ValueError, or what transformers and peft raise: they don't fit together.
    """
    from peft import PeftModel

    model = _base_model(base, [folder for folder, _ in adapters])
    for folder, scale in adapters:
        require_adapter(folder)
        _require_targets(model, folder)
        _untie_embeddings(model, folder)
        adapted: Any = PeftModel.from_pretrained(model, str(folder))
        scaled = [module for module in adapted.modules() if hasattr(module, "scale_layer")]
        for module in scaled:
            module.scale_layer(scale)
        _require_mergeable(adapted, folder, scale if not scaled else 1.0)
        model = adapted.merge_and_unload()
    _state_tying(model)
    model.save_pretrained(target)
    with_tokenizer = [f for f, _ in adapters if any(f.glob("tokenizer*"))]
    source = with_tokenizer[-1] if with_tokenizer else base
    for path in {path for name in TOKENIZER_FILES for path in source.glob(name)}:
        shutil.copy(path, target / path.name)
    for name in ("generation_config.json", "chat_template.jinja"):
        if (base / name).is_file() and not (target / name).is_file():
            shutil.copy(base / name, target / name)


def _base_model(base: Path, adapters: Sequence[Path]) -> Any:
    """Load the model that adapters are for, with as many labels and tokens as they have."""
    import torch
    import transformers

    from hftool.models.gguf_weights import loading_arguments

    config = read_json(base / "config.json")
    kind = read_json(adapters[0] / CONFIG).get("task_type")
    named = next(iter(config.get("architectures") or []), "")
    fallback = getattr(transformers, CLASSES.get(str(kind), "AutoModelForCausalLM"))
    known = getattr(transformers, str(named), None)
    auto: Any = known if kind not in CLASSES and hasattr(known, "from_pretrained") else fallback
    shapes = {
        name: shape
        for folder in adapters
        if (folder / WEIGHTS).is_file()
        for name, (_, shape) in read_tensor_shapes(folder / WEIGHTS).items()
    }
    settings: dict[str, Any] = {}
    if kind == "SEQ_CLS":  # its head comes with the adapter
        settings["ignore_mismatched_sizes"] = True
        heads = [s[0] for n, s in shapes.items() if n.endswith(("score.weight", "out_proj.weight"))]
        heads += [s[0] for n, s in shapes.items() if n.endswith("classifier.weight")]
        if heads and heads[-1] != len(config.get("id2label") or (0, 1)):
            settings["num_labels"] = heads[-1]
    known, source = loading_arguments(auto, base, None, torch.float32)
    if source["config"] is None:
        del source["config"]
        settings["dtype"] = "auto"
    require_known_quantization(base)
    if config.get("quantization_config"):  # transformers would quantize the merged weights again
        raise ValueError(
            "it is quantized, and adapters are merged into plain weights; name the model that it"
            " was made of with --model, and the adapter with --adapter"
        )
    model, info = known.from_pretrained(
        **source,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        **settings,
    )
    saved = {name.removeprefix(PREFIX) for name in shapes}  # heads come with the adapter
    missing = [name for name in info["missing_keys"] if name not in saved]
    mismatched = [found for found in info["mismatched_keys"] if found[0] not in saved]
    if problem := weights_problem({"missing_keys": missing, "mismatched_keys": mismatched}):
        raise ValueError(f"it {problem}")
    if sum(weight.numel() for weight in model.parameters()) <= MAX_FLOAT32_NUMBERS:
        model = model.float()
    rows = [s[0] for n, s in shapes.items() if n.endswith(("embed_tokens.weight", "wte.weight"))]
    if rows and rows[0] != len(model.get_input_embeddings().weight):
        model.resize_token_embeddings(rows[0], mean_resizing=False)
    return model.eval()


def _untie_embeddings(model: Any, folder: Path) -> None:
    """Give the output layer weights of its own where an adapter changes it or the embeddings:
    merged into weights that both use, a change of one would be in both.

    Raises:
        ValueError: the model always shares them.
    """
    import torch

    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if output is None or output.weight is not embeddings.weight:
        return
    names = [name for name, module in model.named_modules() if module in (output, embeddings)]
    changed = read_tensor_shapes(folder / WEIGHTS)
    if any(tensor.startswith(f"{PREFIX}{name}.lora_") for tensor in changed for name in names):
        if model.config.is_encoder_decoder:
            raise ValueError(f"the adapter {folder} changes what the output layer always shares")
        output.weight = torch.nn.Parameter(output.weight.detach().clone())


def _state_tying(model: Any) -> None:
    """Let the config say whether the output layer still shares the weights of the embeddings."""
    output = model.get_output_embeddings()
    if output is not None and output.weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False
        model.config.get_text_config().tie_word_embeddings = False


def _require_mergeable(adapted: Any, folder: Path, scale: float) -> None:
    """Raise an error for an adapter that is no change of weights, or can't be scaled.

    Raises:
        ValueError: with its kind.
    """
    kind = adapted.active_peft_config.peft_type.value
    if not hasattr(adapted.base_model, "merge_and_unload"):
        raise ValueError(f"the adapter {folder} is of the kind {kind}, which changes no weights")
    if scale != 1.0:
        raise ValueError(f"the adapter {folder} is of the kind {kind}, which has no scale")


def _require_targets(model: Any, folder: Path) -> None:
    """Raise an error if an adapter changes a layer that the model has in another size, or not at
    all: peft passes over some of those.

    Raises:
        ValueError: with the layer.
    """
    modules = dict(model.named_modules())
    for name, (_, shape) in read_tensor_shapes(folder / WEIGHTS).items():
        layer, _, part = name.removeprefix(PREFIX).partition(".lora_")
        layer = layer.removesuffix(".base_layer")  # the second parameter of a layer of experts
        if part != "A.weight" or (layer in modules and not hasattr(modules[layer], "weight")):
            continue
        weight = getattr(modules.get(layer), "weight", None)
        if weight is None:
            raise ValueError(f"the adapter {folder} changes {layer}, which the model does not have")
        if shape[1] not in weight.shape:
            raise ValueError(
                f"the adapter {folder} changes {layer} with {shape[1]} inputs, which has"
                f" {tuple(weight.shape)[-1]} in the model"
            )
