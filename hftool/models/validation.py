"""Check a stranger's model folder before anything is built from it: it must not lead out of itself,
nor claim to be larger than it is."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.nn.architectures import DIMENSION_KEYS, HIDDEN_SIZE_KEYS, LAYER_COUNT_KEYS
from hftool.nn.block_kinds import block_shape, read_kinds

LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format
SLACK = 16  # a config's numbers per stored number: packed weights have 16 of 2 bits in 32 bits
LINKS_HINT = "copy the file there; --trust-remote-code follows links as well"


def require_own_files(folder: Path) -> None:
    """Raise an error if a file of the folder is a link that leads out of it.

    A snapshot in the Hugging Face cache may have links into its repository's folder.

    Raises:
        HftoolError: with the file.
    """
    for path in (*folder.iterdir(), *folder.glob("additional_chat_templates/*")):
        if path.is_symlink():
            require_inside(folder, str(path.relative_to(folder)))


def require_inside(folder: Path, name: str) -> None:
    """Raise an error if a file name leads out of a folder.

    Raises:
        HftoolError: with the name.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    if not (folder / name).resolve().is_relative_to(root):
        raise HftoolError(f"{folder / name} is a file outside the model's folder", LINKS_HINT)


def read_tensor_shapes(file: Path) -> dict[str, tuple[str, list[int]]]:
    """Return the dtype and shape of each tensor in a safetensors file by name; for a weight in
    blocks their kind, and the shape that it has in the model.

    They are in its header: eight bytes of length (little-endian), then JSON.

    Raises:
        HftoolError: the file is broken, or has a tensor larger than itself.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > LARGEST_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(stream.read(length))
        kinds = read_kinds(header.pop("__metadata__", None))
        tensors = {name: (str(t["dtype"]), t["shape"]) for name, t in header.items()}
        tensors |= {name: block_shape(kind, *tensors[name]) for name, kind in kinds.items()}
        for name, (_, shape) in tensors.items():
            most = SLACK * size  # some types have less than a byte per number
            if any(type(n) is not int or not 0 <= n <= most for n in shape) or (
                math.prod(shape) > most
            ):
                raise ValueError(f"{name} has an impossible shape")
        return tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HftoolError(f"cannot read {file}: {error}") from None


def tensor_sizes(folder: Path, counted: Callable[[str], bool] = lambda name: True) -> list[int]:
    """Return how many numbers each tensor in a folder's safetensors files has; only of those whose
    name is to be `counted`.

    Raises: as `read_tensor_shapes`.
    """
    return [
        math.prod(shape)
        for file in folder.glob("*.safetensors")
        for name, (_, shape) in read_tensor_shapes(file).items()
        if counted(name)
    ]


def require_plausible(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise an error if a config describes a model far larger than its weights, or names code on
    the hub. transformers would first build such a model, and run that code.

    Raises:
        HftoolError: with the value.
    """
    sizes = tensor_sizes(folder)
    require_fitting(config, len(sizes), sum(sizes), f"{folder}/config.json")
    for name, value in _values(config):
        if name.endswith("implementation") and "/" in str(value):
            raise HftoolError(
                f"{folder}/config.json: {name} names code on the hub, '{str(value)[:60]}'",
                "--trust-remote-code runs that code; read it first",
            )


def require_fitting(config: Mapping[str, Any], count: int, total: int, origin: str) -> None:
    """Raise an error if a config needs far more than `count` tensors with `total` numbers.

    Args:
        origin: what the config was read from, for the error.

    Raises:
        HftoolError: with the value.
    """
    numbers = [(name, value) for name, value in _values(config) if type(value) is int]
    width = max((value for name, value in numbers if name in HIDDEN_SIZE_KEYS), default=1)
    dimensions = (*DIMENSION_KEYS, *HIDDEN_SIZE_KEYS)
    sizes = [(name, value) for name, value in numbers if name in dimensions]
    labels = config.get("id2label")
    sizes.append(("id2label", len(labels) if isinstance(labels, dict) else 0))
    for name, value in numbers:
        # Some models use a layer several times.
        if name in LAYER_COUNT_KEYS and value > SLACK * count:
            raise HftoolError(f"{origin}: {name} is {value}, but the weights have {count} tensors")
    name, value = max(sizes, key=lambda size: size[1])
    if value * width > SLACK * total:
        raise HftoolError(f"{origin}: {name} is {value}, but the weights have {total:,} numbers")


def _values(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield each key of a config, and of the configs in it, with its value."""
    remaining = [config]
    while remaining:
        for name, value in remaining.pop().items():
            yield name, value
            if isinstance(value, dict) and name != "id2label":
                remaining.append(value)
