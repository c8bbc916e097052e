"""Which weights of a safetensors file are in the blocks of a GGUF file.

A converted copy keeps them so, since as float32 they take up to eight times the space: a weight
[outputs, inputs] is bytes [outputs, bytes of a row], and the file's metadata state its kind.
`gguf_blocks.py` computes them; nothing here imports torch.
"""

import json
from collections.abc import Mapping
from typing import Any

METADATA = "blocks"  # JSON: for each weight its kind, its inputs, and whether it is transposed
# The kinds that `gguf_blocks.py` reads, by their names in `gguf.GGMLQuantizationType`: the numbers
# and the bytes of a block. gguf's own code reads the others.
SIZES = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}


def read_kinds(metadata: Mapping[str, str] | None) -> dict[str, list[Any]]:
    """Return what a safetensors file's metadata state about its weights in blocks, by name.

    Raises:
        ValueError: they are broken.
    """
    kinds = json.loads((metadata or {}).get(METADATA, "{}"))
    for kind in kinds.values():
        name, inputs, is_transposed = kind
        if type(name) is not str or type(inputs) is not int or type(is_transposed) is not bool:
            raise ValueError("its metadata are broken")
    return dict(kinds)


def block_shape(kind: list[Any], dtype: str, shape: list[int]) -> tuple[str, list[int]]:
    """Return the name of a kind, and the shape of a weight whose bytes have the shape given.

    Raises:
        ValueError: the bytes can't be a weight of that kind.
    """
    name, inputs, is_transposed = kind
    if name in SIZES:
        numbers, size = SIZES[name]
    else:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        if name not in GGMLQuantizationType.__members__:
            raise ValueError(f"its metadata name the kind {name[:40]!r}")
        numbers, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    if dtype != "U8" or len(shape) < 2 or inputs % numbers or shape[-1] != inputs // numbers * size:
        raise ValueError(f"it has rows of {shape[-1:]} bytes for {inputs} numbers")
    whole = [*shape[:-1], inputs]
    return name, whole[::-1] if is_transposed else whole
