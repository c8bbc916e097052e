"""Digests of a model's files, to notice that a name means another model than before."""

import hashlib
from pathlib import Path

from hftool.models.local_files import ensure_local
from hftool.models.manifest import MANIFEST
from hftool.models.references import endpoint_address, resolve_reference
from hftool.options.model import SourceOptions

SUFFIXES = (".json", ".jinja", ".model", ".txt", ".py", ".safetensors", ".bin", ".gguf")
BLOCKS = 256  # of a large file, spread evenly over it
BLOCK = 4096  # bytes


def model_digest(name: str, options: SourceOptions) -> str:
    """Return a digest of the files that a model and its tokenizer are loaded from. An endpoint
    has none: return its address.

    Of large files it covers the size and some blocks, since reading all weights would take longer
    than loading them. Two trainings of one model differ in every block.

    Raises:
        HftoolError: as `ensure_local`.
    """
    if address := endpoint_address(name):
        return address
    folder = ensure_local(resolve_reference(name, options.revision), "model", options, name)
    sums = hashlib.blake2b(digest_size=16)
    for path in sorted([*folder.glob("*"), *folder.glob("additional_chat_templates/*")]):
        if path.suffix in SUFFIXES and path.name != MANIFEST and path.is_file():
            sums.update(f"{path.name}\n{path.stat().st_size}\n".encode())
            sums.update(_sampled(path))
    return sums.hexdigest()


def _sampled(path: Path) -> bytes:
    """Return a file's content; of a large file, blocks of it that include the first and the
    last."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= BLOCKS * BLOCK:
            return file.read()
        blocks = []
        for number in range(BLOCKS):
            file.seek((size - BLOCK) * number // (BLOCKS - 1))
            blocks.append(file.read(BLOCK))
        return b"".join(blocks)
