"""The weights of a checkpoint, as functions to compute with."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open

from hftool.json_files import read_json
from hftool.nn.quantization import Bits, quantized_linear

Linear = Callable[[torch.Tensor], torch.Tensor]
Linears = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


def stored(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor] | None:
    """The weights in a folder's safetensors files, mapped into memory; None where they are not just
    these.

    Raises:
        SafetensorError: a file is broken.
    """
    found: dict[str, torch.Tensor] = {}
    index = read_json(folder / "model.safetensors.index.json").get("weight_map", {})
    names = sorted({str(name) for name in index.values()}) if index else ["model.safetensors"]
    if any(Path(name).name != name or not (folder / name).is_file() for name in names):
        return None
    for name in names:
        with safe_open(folder / name, framework="pt") as file:
            for key in file.keys():
                if key not in shapes or tuple(file.get_slice(key).get_shape()) != shapes[key]:
                    return None
                tensor: torch.Tensor = file.get_tensor(key)
                if not tensor.is_floating_point():
                    return None
                found[key] = tensor
    return found if len(found) == len(shapes) else None


class Weights:
    """Weights by name, and the precision to compute in: `bits` of the linear layers' weights, with
    `inputs_too` of their inputs as well, and `dtype` of all else."""

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
        """One of them."""
        return self._stored[name].to(self.dtype)

    def linear(self, *names: str) -> Linear:
        """Layers with the same input: their outputs behind each other.

        Where weights are not quantized each is a product of its own, which rounds as it does alone.
        """
        if self.bits is not None:
            return self.product(*names)
        if len(names) == 1:
            weight, bias = self.tensor(f"{names[0]}.weight"), self._bias(names)
            return lambda inputs: F.linear(inputs, weight, bias)
        each = self.each(*names)
        return lambda inputs: torch.cat(each(inputs), dim=-1)

    def each(self, *names: str) -> Linears:
        """Layers with the same input, as `linear`: the outputs of each."""
        if self.bits is not None:
            product = self.product(*names)
            sizes = [len(self._stored[f"{name}.weight"]) for name in names]
            return lambda inputs: torch.split(product(inputs), sizes, dim=-1)
        layers = [self.linear(name) for name in names]
        return lambda inputs: tuple(layer(inputs) for layer in layers)

    def product(self, *names: str) -> Linear:
        """Layers with the same input as one product."""
        weights = [self._stored[f"{name}.weight"] for name in names]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        bias = self._bias(names)
        if self.bits is not None:
            layer = quantized_linear(
                weight, bias, self.dtype, self.bits, inputs_too=self._inputs_too
            )
            if layer is not None:
                return layer
        weight = weight.to(self.dtype)
        return lambda inputs: F.linear(inputs, weight, bias)

    def _bias(self, names: Sequence[str]) -> torch.Tensor | None:
        """The biases behind each other, None where the layers have none."""
        if f"{names[0]}.bias" not in self._stored:
            return None
        return torch.cat([self.tensor(f"{name}.bias") for name in names])
