"""Read the weights of a checkpoint, and turn them into functions to compute with."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.nn.architectures import NotComputed
from hftool.nn.block_kinds import read_kinds
from hftool.nn.gguf_blocks import Blocks, four_bit_grid, in_four_bits
from hftool.nn.kernels import Int4KernelLinear, KernelLinear
from hftool.nn.products import can_pack, packed_linear
from hftool.nn.quantization import (
    HEAD_BITS,
    INT4_OUTPUTS,
    linear_class,
    quantized_linear,
)
from hftool.nn.quantized_linear import Bits, Grid, QuantizedLinear

Linear = Callable[[torch.Tensor], torch.Tensor]
Linears = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
Stored = torch.Tensor | Blocks

FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' names of the dtypes that are computed here


class StoredWeights:
    """The weights in a folder's files by name, mapped into memory when they are asked for: with the
    first page of each the system may bring in a megabyte."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._mapped: dict[str, Callable[[], Stored]] = {}

    def add(self, name: str, shape: tuple[int, ...], mapped: Callable[[], Stored]) -> None:
        """Add a weight, and what returns it."""
        self.shapes[name], self._mapped[name] = shape, mapped

    def __getitem__(self, name: str) -> Stored:
        return self._mapped[name]()


def read_weights(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    named: Callable[[str], str | None],
) -> StoredWeights:
    """Find the weights in a folder's safetensors files.

    Args:
        named: gives the name in `shapes` of a name in the files, None for one that is not used.

    Raises:
        NotComputed: they are not exactly those in `shapes`, floating-point.
        HftoolError: a file is broken.
    """
    weights = StoredWeights()
    try:
        for path in _weight_files(folder):
            file: Any = safe_open(path, framework="pt")
            kinds = read_kinds(file.metadata())
            for key in file.keys():
                if (name := named(key)) is None:
                    continue
                mapped: Callable[[], Stored] = partial(_stored, file, key, kinds)
                header = file.get_slice(key)
                shape = mapped().shape if key in kinds else header.get_shape()
                if tuple(shape) != shapes.get(name):
                    raise NotComputed(f"its weight {key} is not expected, or has another shape")
                if key not in kinds and (dtype := header.get_dtype()) not in FLOATS:
                    raise NotComputed(f"its weight {key} is of {dtype}")
                weights.add(name, tuple(shape), mapped)
    except (SafetensorError, ValueError) as error:
        raise HftoolError(f"cannot read the weights in {folder}: {error}") from None
    if missing := shapes.keys() - weights.shapes.keys():
        raise NotComputed(f"its weights have no {min(missing)}")
    return weights


def weights_of_blocks(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return all weights of a folder as numbers; none if it has none in blocks.

    Raises:
        SafetensorError, ValueError: a file is broken.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            if kinds := read_kinds(file.metadata()):
                for name in file.keys():
                    weights[name] = _stored(file, name, kinds).to(dtype)
    return weights


def _stored(file: Any, name: str, kinds: Mapping[str, Any]) -> Stored:
    tensor: torch.Tensor = file.get_tensor(name)
    return Blocks(tensor, *kinds[name]) if name in kinds else tensor


def _weight_files(folder: Path) -> list[Path]:
    index = read_json(folder / "model.safetensors.index.json").get("weight_map") or {}
    names = sorted({str(name) for name in index.values()}) if isinstance(index, dict) else []
    if not names or (folder / "model.safetensors").is_file():  # transformers takes this one first
        names = ["model.safetensors"]
    if any(Path(name).name != name or not (folder / name).is_file() for name in names):
        raise NotComputed("its weights are not in safetensors files of the folder")
    return [folder / name for name in names]


def embedded(ids: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Return the embeddings [..., hidden] of token ids [...], out of a table [tokens, hidden].

    Raises:
        HftoolError: an id is beyond the table.
    """
    try:
        return F.embedding(ids, embeddings)
    except IndexError:
        raise unknown_token(int(ids.max()), len(embeddings)) from None


def unknown_token(token_id: int, rows: int) -> HftoolError:
    """Return the error for a token id beyond the `rows` of an embedding table."""
    return HftoolError(
        f"the text has the token id {token_id}, but the model's embeddings have only {rows} rows",
        "its tokenizer.json may be that of another model",
    )


class Weights:
    """Weights by name, and the precision to compute in: `bits` for the weights of linear layers,
    with `inputs_too` also for their inputs, and `dtype` for everything else.

    `kept` has tensors that were made of these weights before; what is made now is added to it.
    `grids` has those layers, by their names joined with "+", that are already rounded to 4 bits.
    """

    def __init__(
        self,
        stored: StoredWeights,
        dtype: torch.dtype,
        bits: Bits | None,
        *,
        inputs_too: bool = False,
        kept: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self._kept = {} if kept is None else kept
        self.grids: dict[str, Grid] = {}
        self.dtype = dtype
        self.bits = bits
        self._stored = stored
        self._inputs_too = inputs_too

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return the numbers of outputs and inputs of a linear layer."""
        return self._stored.shapes[f"{layer}.weight"]

    def in_four_bits(self, *names: str) -> bool:
        """Return whether the weights of linear layers need no rounding to 4 bits."""
        return all(in_four_bits(self._stored[f"{name}.weight"]) for name in names)

    def matrix(self, *names: str) -> torch.Tensor:
        """Return the concatenated weights of linear layers with the same input."""
        stored = [self._stored[f"{name}.weight"] for name in names]
        weights = [w.to(torch.float32) if isinstance(w, Blocks) else w for w in stored]
        return torch.cat(weights) if len(weights) > 1 else weights[0]

    def tensor(self, name: str) -> torch.Tensor:
        """Return a weight in the precision to compute in."""
        if name in self._kept:
            return self._kept[name]
        stored = self._stored[name]
        computed = isinstance(stored, Blocks) or self.bits is not None  # but once, if it is tied
        # Norms are kept beside quantized weights, so that the other file need not be mapped.
        if not computed or (stored.dtype == self.dtype and len(stored.shape) > 1):
            return stored.to(self.dtype)
        self._kept[name] = stored.to(self.dtype)
        return self._kept[name]

    def linear(self, *names: str) -> Linear:
        """Return a function that computes linear layers with the same input, and concatenates
        their outputs.

        Unless weights are quantized, each layer is a product of its own, so that it rounds as it
        does in transformers.
        """
        if self.bits is not None:
            return self.product(*names)
        if len(names) == 1:
            weight, bias = self.tensor(f"{names[0]}.weight"), self._bias(names)
            return lambda inputs: F.linear(inputs, weight, bias)
        each = self.each(*names)
        return lambda inputs: torch.cat(each(inputs), dim=-1)

    def head(self, name: str) -> Linear:
        """Return a function that computes the output layer."""
        return self.linear(name) if self.bits is None else self.product(name, bits=HEAD_BITS)

    def each(self, *names: str) -> Linears:
        """Return a function like that of `linear` for weights that are not quantized, which returns
        the outputs of each layer."""
        layers = [self.linear(name) for name in names]
        return lambda inputs: tuple(layer(inputs) for layer in layers)

    def product(self, *names: str, bits: Bits | None = None) -> Linear:
        """Return a function that computes linear layers with the same input as one product, with
        weights in `bits` instead of the model's."""
        bits = bits or self.bits
        if bits is not None and (layer := self._quantized(bits, names)) is not None:
            return layer
        weights = [self._stored[f"{name}.weight"].to(self.dtype) for name in names]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        bias = self._bias(names)
        return lambda inputs: F.linear(inputs, weight, bias)

    def fused(self, *names: str, gelu: bool = False) -> Linear:
        """Return a function like that of `product`, with GELU afterwards if asked for, which rounds
        differently from transformers in exchange for speed."""
        if self.bits is None and can_pack(self.dtype):
            weights = [self.tensor(f"{name}.weight") for name in names]
            return packed_linear(torch.cat(weights), self._bias(names), gelu=gelu)
        product = self.product(*names)
        if gelu and isinstance(product, KernelLinear):
            return partial(product, gelu=True)
        return (lambda inputs: F.gelu(product(inputs))) if gelu else product

    def _quantized(self, bits: Bits, names: Sequence[str]) -> Linear | None:
        prefix = "+".join(names)
        shapes = [self.shape(name) for name in names]
        shape = (sum(outputs for outputs, _ in shapes), shapes[0][1])
        kind: Any = linear_class(bits, shape, inputs_too=self._inputs_too)
        parts = {part: f"{prefix}:{part}" for part in (*kind.PARTS, "bias")}
        if all(parts[name] in self._kept for name in kind.PARTS):
            known = {part: self._kept[key] for part, key in parts.items() if key in self._kept}
            found: QuantizedLinear = kind.of_parts(known)
            return found
        bias = self._bias(names)
        layer: QuantizedLinear | None = None
        if bits == "int4" and shape[0] % INT4_OUTPUTS == 0:
            stored = [self._stored[f"{name}.weight"] for name in names]
            grid = self.grids.get(prefix) or four_bit_grid(stored)
            layer = None if grid is None else kind.of_grid(*grid, bias, self.dtype)
            if prefix in self.grids and isinstance(layer, Int4KernelLinear):
                layer.shrink_scales()
        if layer is None:
            matrix = self.matrix(*names)
            layer = quantized_linear(matrix, bias, self.dtype, bits, inputs_too=self._inputs_too)
        if layer is not None:
            self._kept |= {parts[part]: tensor for part, tensor in layer.parts().items()}
        return layer

    def _bias(self, names: Sequence[str]) -> torch.Tensor | None:
        """Return the concatenated biases, None if the layers have no bias."""
        if f"{names[0]}.bias" not in self._stored.shapes:
            return None
        return torch.cat([self.tensor(f"{name}.bias") for name in names])
