"""Choose the device that a model computes on, and the precision."""

import re
from typing import Any

import torch

from hftool.errors import HftoolError, UsageError

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def choose_device(name: str) -> torch.device:
    """Return a device by its name; `auto` is a CUDA device, else Apple's GPU, else the CPU.

    Raises:
        UsageError: the name is not that of a device.
        HftoolError: this machine has no such device.
    """
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"unknown device '{name}'", "one of auto, cpu, cuda, cuda:N, mps")
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= cuda:
        devices = "1 CUDA device" if cuda == 1 else f"{cuda} CUDA devices"
        build = "" if torch.version.cuda else "; this torch is built for the CPU only"
        raise HftoolError(f"no device {name}: found {devices}{build}", "use --device cpu")
    if device.type == "mps" and not mps:
        raise HftoolError("no device mps on this machine", "use --device cpu")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return a precision by torch's name for it.

    `auto` is bfloat16 if the device computes in it, else float16 on a GPU and float32 on a CPU.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if _cpu_computes_bfloat16() else torch.float32


def _cpu_computes_bfloat16() -> bool:
    """Return whether the CPU has instructions for bfloat16 products, rather than emulates them."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities:
        names = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16")
        return any(capabilities.get(name) for name in names)
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # before torch 2.13
    return bool(probe and probe())
