"""Products of matrices by oneDNN, where torch's own are slower."""

import functools
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

PACKED_TOKENS = 1024  # for which weights are arranged; other numbers work as well


class OneDnnProducts(TorchFunctionMode):
    """While it is entered, linear layers of any model on an AMD processor with AVX-512 compute
    float32 by oneDNN, which takes less than half the time.

    torch computes them by MKL, which uses AVX-512 on Intel's processors only. The last bits differ.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute a linear layer by oneDNN; leave everything else as it is."""
        if func is F.linear and not kwargs and _mkl_is_slow() and _are_plain(args):
            inputs, weight, *bias = args
            linear = torch.ops.mkldnn._linear_pointwise
            return linear(inputs, weight, bias[0] if bias else None, "none", [], "")
        return func(*args, **(kwargs or {}))


def _are_plain(tensors: Sequence[Any]) -> bool:
    """Return whether these are dense matrices in float32 on the CPU, or None."""
    return all(
        tensor is None
        or (
            tensor.dtype == torch.float32
            and tensor.device.type == "cpu"
            and tensor.is_contiguous()
            and tensor.numel()
        )
        for tensor in tensors
    )


@functools.cache
def _mkl_is_slow() -> bool:
    """Return whether this is a processor on which MKL leaves out AVX-512, and oneDNN doesn't."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or platform.system() != "Linux":
        return False
    cpu = Path("/proc/cpuinfo").read_text(errors="replace")
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and "AuthenticAMD" in cpu


def can_pack(dtype: torch.dtype) -> bool:
    """Return whether this torch, on this machine, has the kernels."""
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def packed_linear(
    weight: torch.Tensor, bias: torch.Tensor | None, *, gelu: bool
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that computes a linear layer with a weight [outputs, inputs], and GELU of
    its outputs if asked for. Its inputs [..., inputs] are contiguous."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_TOKENS)
    name, algorithm = ("gelu", "none") if gelu else ("none", "")
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda inputs: linear(inputs, packed, bias, name, [], algorithm)
