"""Where a model computes, and in which precision."""

import re
from typing import Any

import torch

from hftool.errors import HftoolError, UsageError

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def choose_device(asked: str) -> torch.device:
    """The device asked for; `auto` is a CUDA device, else Apple's, else the CPU.

    Raises:
        UsageError: no such kind of device.
        HftoolError: this machine has none of that kind.
    """
    if not _DEVICE.fullmatch(asked):
        raise UsageError(f"unknown device '{asked}'", "one of auto, cpu, cuda, cuda:N, mps")
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if asked == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    device = torch.device(asked)
    if device.type == "cuda" and (device.index or 0) >= cuda:
        built = "" if torch.version.cuda else "; this torch is a CPU build"
        raise HftoolError(f"no device {asked}: {cuda} CUDA devices here{built}", "use --device cpu")
    if device.type == "mps" and not mps:
        raise HftoolError("no device mps on this machine", "use --device cpu")
    return device


def choose_dtype(asked: str, device: torch.device) -> torch.dtype:
    """The precision asked for; `auto` is bfloat16 where the device computes in it, else float32."""
    if asked != "auto":
        dtype: torch.dtype = getattr(torch, asked)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if _cpu_computes_bfloat16() else torch.float32


def _cpu_computes_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products (not: emulates them)."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        names = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16")
        return any(capabilities.get(name) for name in names)
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # before torch 2.13
    return bool(probe and probe())
