"""Quantized weights are kept on disk, where the next command maps them into its memory: to quantize
a model of a billion numbers takes seconds."""

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from hftool import config
from hftool.errors import HftoolError
from hftool.models.checkpoints import weight_files
from hftool.models.converted_copies import (
    PART,
    Conversion,
    copies_lock,
    copies_path,
    quantized_conversion,
)
from hftool.models.manifest import QUANTIZED, is_complete, write_manifest
from hftool.nn.kernels import kernels
from hftool.nn.quantized_linear import Bits

log = logging.getLogger("hftool")

LEAST = 128_000_000  # bytes of weights; smaller ones are quantized in a few tenths of a second


@dataclass
class QuantizedCopy:
    """What was made of a model's weights: `tensors` by name, empty if there is no copy yet."""

    conversion: Conversion
    tensors: dict[str, torch.Tensor]
    is_complete: bool

    def keep(self) -> None:
        """Write the copy if there is none; without one, weights are quantized each time."""
        if self.is_complete or not self.tensors:
            return
        try:
            config.cache_path().mkdir(mode=0o700, parents=True, exist_ok=True)
            copies_path().mkdir(mode=0o700, exist_ok=True)
            with copies_lock():
                self._write()
        except (OSError, RuntimeError, HftoolError) as error:
            log.warning("the quantized weights can't be kept for the next time: %s", error)

    def _write(self) -> None:
        folder, made = self.conversion.folder, self.conversion
        if is_complete(folder):  # another process has written it
            return
        size = sum(tensor.nbytes for tensor in self.tensors.values()) >> 20
        log.info("keeping the quantized weights for the next time (%d MB)", size)
        shutil.rmtree(folder, ignore_errors=True)
        part = Path(tempfile.mkdtemp(PART, f".{folder.name}.", folder.parent))
        try:
            torch.save(self.tensors, part / QUANTIZED)  # aligned, as the kernels need it
            write_manifest(part, made.kind, made.source, made.made_of, ())
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def quantized_copy(folder: Path, bits: Bits, dtype: torch.dtype) -> QuantizedCopy | None:
    """Return the copy of a model's quantized weights; None for a small model.

    Raises:
        HftoolError: a file can't be read.
    """
    if sum(path.stat().st_size for path in weight_files(folder)) < LEAST:
        return None
    settings = {"bits": bits, "dtype": str(dtype).removeprefix("torch.")}
    if kernels() is not None:
        settings["kernels"] = kernels().__version__
    else:  # torch packs 4-bit weights for the instructions of a CPU
        settings["cpu"] = torch.backends.cpu.get_cpu_capability()
    conversion = quantized_conversion(folder, settings)
    tensors: dict[str, torch.Tensor] = {}
    if complete := is_complete(conversion.folder):
        try:
            tensors = torch.load(conversion.folder / QUANTIZED, mmap=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise HftoolError(f"cannot read {conversion.folder}: {error}") from None
    return QuantizedCopy(conversion, tensors, complete)
