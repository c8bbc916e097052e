"""Products of float32 matrices by oneDNN, where torch's own are slower."""

import functools
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


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
