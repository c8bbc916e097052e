"""What a stranger's model folder may not do: lead out of itself, or claim more than it holds.

Looked at before anything is built of it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hftool.errors import HftoolError
from hftool.nn.architectures import DIMENSION_KEYS, HIDDEN_SIZE_KEYS, LAYER_COUNT_KEYS

LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format
SLACK = 16  # packed weights: so many of 2 bits are one number of 32
LINKS_HINT = "copy the file there; --trust-remote-code follows links as well"


def require_own_files(folder: Path) -> None:
    """Raise where a file of the folder is a link that leads out of it, or names another model; a
    snapshot of the Hugging Face cache has its files in the repository's folder.

    Raises:
        HftoolError: with the file.
    """
    adapter, config = folder / "adapter_config.json", folder / "config.json"
    if adapter.is_file() and config.is_file():  # transformers would load the model it names
        raise HftoolError(
            f"{folder} is an adapter to another model", "merge it into that one first"
        )
    for path in folder.iterdir():
        if path.is_symlink():
            require_inside(folder, path.name)


def require_inside(folder: Path, name: str) -> None:
    """Raise where a name leads out of a folder.

    Raises:
        HftoolError: with the name.
    """
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    if not (folder / name).resolve().is_relative_to(root):
        raise HftoolError(f"{folder / name} is a file outside the model's folder", LINKS_HINT)


def tensors(file: Path) -> dict[str, tuple[str, list[int]]]:
    """The dtype and shape of each tensor in a safetensors file, out of its header: eight bytes of
    length (little-endian), then JSON.

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
        header.pop("__metadata__", None)
        found = {name: (str(t["dtype"]), t["shape"]) for name, t in header.items()}
        for name, (_, shape) in found.items():
            # Some types have less than a byte for each number.
            most = SLACK * size
            if any(type(n) is not int or not 0 <= n <= most for n in shape) or (
                math.prod(shape) > most
            ):
                raise ValueError(f"{name} has an impossible shape")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HftoolError(f"cannot read {file}: {error}") from None


def sizes_of_tensors(folder: Path) -> list[int]:
    """How many numbers each tensor in a folder's safetensors files has.

    Raises: as `tensors`.
    """
    files = folder.glob("*.safetensors")
    return [math.prod(shape) for file in files for _, shape in tensors(file).values()]


def require_plausible(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise where a config describes a model far larger than its weights, which would be built
    first and found wrong then, or names code of the hub's.

    Raises:
        HftoolError: with the value.
    """
    sizes = sizes_of_tensors(folder)
    require_fitting(config, len(sizes), sum(sizes), f"{folder}/config.json")
    for name, value in _values(config):
        if name.endswith("implementation") and "/" in str(value):
            raise HftoolError(
                f"{folder}/config.json: {name} names code on the hub, '{str(value)[:60]}'",
                "--trust-remote-code runs that code; read it first",
            )


def require_fitting(config: Mapping[str, Any], count: int, total: int, where: str) -> None:
    """Raise where a config needs more than `count` tensors of `total` numbers.

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
            raise HftoolError(f"{where}: {name} is {value}, and the weights are {count} tensors")
    name, value = max(sizes, key=lambda size: size[1])
    if value * width > SLACK * total:
        raise HftoolError(f"{where}: {name} is {value}, and the weights are {total:,} numbers")


def _values(config: Any) -> Iterator[tuple[str, Any]]:
    """Each name of a config and of the configs in it, with its value."""
    waiting = [config]
    while waiting:
        for name, value in waiting.pop().items():
            yield name, value
            if isinstance(value, dict) and name != "id2label":
                waiting.append(value)
