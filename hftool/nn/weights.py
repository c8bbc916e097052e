"""Read the weights of a checkpoint, and turn them into functions to compute with."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.nn.quantization import HEAD_BITS, Bits, quantized_linear

Linear = Callable[[torch.Tensor], torch.Tensor]
Linears = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]

FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' names of the dtypes that are computed here


def read_weights(
    folder: Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, torch.Tensor] | None:
    """Map the weights in a folder's safetensors files into memory.

    Returns: the weights by name; None unless they are exactly those in `shapes`, floating-point.

    Raises:
        HftoolError: a file is broken.
    """
    index = read_json(folder / "model.safetensors.index.json").get("weight_map") or {}
    if not isinstance(index, dict):
        return None
    names = sorted({str(name) for name in index.values()})
    if not names or (folder / "model.safetensors").is_file():  # transformers takes this one first
        names = ["model.safetensors"]
    if any(Path(name).name != name or not (folder / name).is_file() for name in names):
        return None
    weights: dict[str, torch.Tensor] = {}
    try:
        for name in names:
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():
                    stored = file.get_slice(key)
                    if tuple(stored.get_shape()) != shapes.get(key):
                        return None
                    if stored.get_dtype() not in FLOATS:
                        return None
                    weights[key] = file.get_tensor(key)
    except SafetensorError as error:
        raise HftoolError(f"cannot read the weights in {folder}: {error}") from None
    return weights if len(weights) == len(shapes) else None


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
    with `inputs_too` also for their inputs, and `dtype` for everything else."""

    def __init__(
        self,
        stored: Mapping[str, torch.Tensor],
        dtype: torch.dtype,
        bits: Bits | None,
        *,
        inputs_too: bool = False,
    ) -> None:
        self.dtype = dtype
        self.bits = bits
        self._stored = stored
        self._inputs_too = inputs_too

    def tensor(self, name: str) -> torch.Tensor:
        """Return a weight in the precision to compute in."""
        return self._stored[name].to(self.dtype)

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
        """Return a function like that of `linear`, which returns the outputs of each layer."""
        if self.bits is not None:
            product = self.product(*names)
            sizes = [len(self._stored[f"{name}.weight"]) for name in names]
            return lambda inputs: torch.split(product(inputs), sizes, dim=-1)
        layers = [self.linear(name) for name in names]
        return lambda inputs: tuple(layer(inputs) for layer in layers)

    def product(self, *names: str, bits: Bits | None = None) -> Linear:
        """Return a function that computes linear layers with the same input as one product, with
        weights in `bits` instead of the model's."""
        bits = bits or self.bits
        weights = [self._stored[f"{name}.weight"] for name in names]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        bias = self._bias(names)
        if bits is not None:
            layer = quantized_linear(weight, bias, self.dtype, bits, inputs_too=self._inputs_too)
            if layer is not None:
                return layer
        weight = weight.to(self.dtype)
        return lambda inputs: F.linear(inputs, weight, bias)

    def _bias(self, names: Sequence[str]) -> torch.Tensor | None:
        """Return the concatenated biases, None if the layers have no bias."""
        if f"{names[0]}.bias" not in self._stored:
            return None
        return torch.cat([self.tensor(f"{name}.bias") for name in names])
