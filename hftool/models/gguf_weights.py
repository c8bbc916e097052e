"""The weights of a GGUF file by transformers' names and in its order, in the file's own blocks.

transformers turns all blocks into float32. Here its own table of names and its own reordering are
applied to one tensor at a time, and where its result is rows of that tensor, the rows are kept as
the file has them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from hftool.models.gguf_reader import GgufHeader
from hftool.nn.block_kinds import METADATA
from hftool.nn.weights import weights_of_blocks

FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


class Source:
    """A tensor of a GGUF file: `data`, its blocks as bytes [..., bytes of a row], and `numbers`,
    what they stand for: float32 [..., inputs]."""

    def __init__(self, tensor: Any) -> None:
        from gguf import dequantize

        self.name: str = tensor.name
        self.kind: str = tensor.tensor_type.name
        self.data: np.ndarray[Any, Any] = tensor.data
        self.numbers: np.ndarray[Any, Any] = dequantize(tensor.data, tensor.tensor_type)

    @property
    def is_quantized(self) -> bool:
        """Whether the numbers are in blocks."""
        return self.data.dtype == np.uint8 and self.kind not in FLOATS

    def rows(self) -> dict[bytes, int]:
        """Return the index of each row by its numbers."""
        rows = self.numbers.reshape(-1, self.numbers.shape[-1])
        return {row.tobytes(): i for i, row in enumerate(rows)}


class BlockWriter:
    """Collects the weights of a model, as numbers or in blocks, and writes them into a file."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._kinds: dict[str, tuple[str, int, bool]] = {}

    def add(self, name: str, weight: np.ndarray[Any, Any], sources: Sequence[Source]) -> None:
        """Add a weight that was made of some tensors: in their blocks where its rows are theirs."""
        for is_transposed in (False, True):
            if weight.ndim < 2 or (is_transposed and weight.ndim != 2):
                continue
            rows = np.ascontiguousarray(weight.T if is_transposed else weight)
            for kind in {source.kind for source in sources if source.is_quantized}:
                blocks = _in_blocks(rows, [s for s in sources if s.kind == kind])
                if blocks is not None:
                    self.tensors[name] = torch.from_numpy(np.array(blocks))
                    self._kinds[name] = (kind, rows.shape[-1], is_transposed)
                    return
        numbers = torch.from_numpy(np.array(weight))
        kinds = {source.kind for source in sources}
        dtype = FLOATS.get(kinds.pop()) if len(kinds) == 1 else None
        if dtype is not None and torch.equal(numbers.to(dtype).to(numbers.dtype), numbers):
            numbers = numbers.to(dtype)
        self.tensors[name] = numbers

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight in the model."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        for name, (_, inputs, is_transposed) in self._kinds.items():
            shape = (*shapes[name][:-1], inputs)
            shapes[name] = shape[::-1] if is_transposed else shape
        return shapes

    def write(self, path: Path) -> None:
        """Write a safetensors file, whose metadata state the kinds of the blocks."""
        metadata = {"format": "pt"}
        if self._kinds:
            metadata[METADATA] = json.dumps(self._kinds)
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, path, metadata=metadata)


def _in_blocks(
    weight: np.ndarray[Any, Any], sources: Sequence[Source]
) -> np.ndarray[Any, Any] | None:
    """Return the bytes of a weight's rows, None if they are not all rows of the sources."""
    inputs = weight.shape[-1]
    sources = [source for source in sources if source.numbers.shape[-1] == inputs]
    for source in sources:
        if source.numbers.shape == weight.shape and np.array_equal(source.numbers, weight):
            return source.data
    known: dict[bytes, np.ndarray[Any, Any]] = {}
    for source in sources:
        data = source.data.reshape(-1, source.data.shape[-1])
        known |= {row: data[i] for row, i in source.rows().items()}
    found = [known.get(row.tobytes()) for row in weight.reshape(-1, inputs)]
    if not known or any(row is None for row in found):
        return None
    blocks = np.stack([row for row in found if row is not None])
    return blocks.reshape(*weight.shape[:-1], blocks.shape[-1])


def read_weights(file: Path, model: Any) -> BlockWriter:
    """Return the weights of a file for a model of one of transformers' older kinds of GGUF; the
    model has no memory for its weights.

    A layer's experts come in several tensors, whose weight is made of all of them at the end.
    """
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    reader: Any = GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    create: Any = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    processor = create(config=model.config.to_dict())
    names = get_gguf_hf_weights_map(model, processor)
    writer = BlockWriter()
    joined: dict[str, Any] = {"tensors": {}}
    parts: list[Source] = []
    for tensor in reader.tensors:
        source = Source(tensor)
        made = processor.process(
            weights=source.numbers,
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters=joined,
        )
        if made.name is None:
            parts.append(source)
        elif made.name in names:
            writer.add(names[made.name], made.weights, [source])
    for name, weight in joined["tensors"].items():
        layer = {s.name.split(".")[1] for s in parts} & {*name.split(".")}  # of blk.7.ffn_up_exps
        of_layer = [s for s in parts if s.name.split(".")[1] in layer]
        writer.add(name, weight.numpy(), of_layer)
    return writer


def is_newer_kind(header: GgufHeader) -> bool:
    """Return whether transformers reads a file by its newer code, which has no reordering of single
    tensors to be called."""
    from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS

    return header.metadata["general.architecture"] in GGUF_ARCHS


def pack(weights: Mapping[str, np.ndarray[Any, Any]], file: Path) -> BlockWriter:
    """Return the weights that transformers made of a file, in the file's blocks."""
    from gguf import GGUFReader

    reader: Any = GGUFReader(file)
    sources = [Source(tensor) for tensor in reader.tensors]
    writer = BlockWriter()
    for name, weight in weights.items():
        same = [s for s in sources if s.numbers.size == weight.size]
        writer.add(name, weight, same or sources)
    return writer


def loading_arguments(
    auto: Any, folder: Path, config: Any, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """Return the class of transformers that loads a model, one of an auto class, and where it takes
    the weights from: the folder, or what is made of the folder's blocks."""
    weights = weights_of_blocks(folder, dtype)
    if not weights:
        return auto, {"pretrained_model_name_or_path": folder, "config": config}
    import transformers

    config = config or transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    generation = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):  # an auto class needs a folder
        known = type(auto.from_config(config)) if hasattr(auto, "from_config") else auto
    return known, {
        "pretrained_model_name_or_path": None,
        "config": config,
        "state_dict": weights,
        "generation_config": generation,
    }
