"""The tensors in a folder's weights, against what its config.json states and its model uses."""

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.models.validation import read_tensor_shapes

log = logging.getLogger("hftool")

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# Types of numbers that are only a part of a weight: it needs scales as well.
SCALED_DTYPES = re.compile("F8_.*|F4.*|F6.*|[IU](4|8|16|32)")
# Tensors that older files have although the model computes them itself.
COMPUTED = re.compile(
    r"position_ids$|rotary_emb\.inv_freq$|\.masked_bias$|\.attn\.bias$|^lm_head\."
)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers reads in a folder: model.safetensors if there
    is one, else those of the index."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = read_json(folder / INDEX).get("weight_map")
    names = sorted({str(name) for name in index.values()}) if isinstance(index, dict) else []
    return [folder / name for name in names if (folder / name).is_file()]


def require_known_quantization(folder: Path) -> None:
    """Raise an error if a model's weights are quantized in a way that transformers does not know:
    it would take their integers for the weights.

    Raises:
        HftoolError: with the kind of quantization, as far as the files tell.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    config = read_json(folder / "config.json")
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if isinstance(settings, dict) and (
        settings.get("load_in_4bit") or settings.get("load_in_8bit")
    ):
        method = "bitsandbytes_4bit"  # older files of bitsandbytes don't name it
    if method == "bitsandbytes" or method in AUTO_QUANTIZATION_CONFIG_MAPPING:
        return
    use_another = "use the model that it was made of, or a GGUF of it"
    shapes = {n: t for file in weight_files(folder) for n, t in read_tensor_shapes(file).items()}
    if isinstance(config.get("quantization"), dict) and any(n.endswith(".scales") for n in shapes):
        bits = config["quantization"].get("bits")
        raise HftoolError(f"{folder} is a model for MLX, quantized to {bits} bits", use_another)
    if method is not None:
        raise HftoolError(
            f"{folder} is quantized by '{method}', which transformers does not read", use_another
        )
    if settings is not None:
        raise HftoolError(f"{folder}/config.json: quantization_config has no quant_method")
    for name, (dtype, shape) in shapes.items():
        if SCALED_DTYPES.fullmatch(dtype) and len(shape) > 1:
            raise HftoolError(
                f"{folder}: {name} is quantized ({dtype}), and config.json does not state how",
                use_another,
            )


def weights_problem(info: Mapping[str, Any]) -> str | None:
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


def report_unused(folder: Path, unused: Collection[str]) -> None:
    """Log a warning if a folder's weights have tensors that the model does not use, or if it has
    weights twice: what transformers does then may not be what was meant."""
    names = sorted(name for name in unused if not COMPUTED.search(name))
    if names:
        log.warning(
            "%s: the model does not use %d of the tensors in its weights, such as %s;"
            " config.json may lack a setting",
            *(folder, len(names), names[0]),
        )


def report_two_sets(folder: Path) -> None:
    """Log a warning if a folder has weights twice, in one file and in those of an index."""
    index = read_json(folder / INDEX).get("weight_map")
    if (folder / SINGLE).is_file() and isinstance(index, dict):
        others = sorted({str(name) for name in index.values()} - {SINGLE})
        if any((folder / name).is_file() for name in others):
            log.warning(
                "%s has its weights twice: %s is used, as by transformers, and %s is not",
                *(folder, SINGLE, others[0]),
            )
