"""The steps of a tokenizer: of its normalizer, its splitter (pre-tokenizer) and its decoder."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import decoders, normalizers, pre_tokenizers

from hftool.tokenization.token_bytes import Step


def steps_of(part: Any) -> Iterator[Any]:
    """Yield the steps of a normalizer or a splitter, also those of a sequence inside it; none for
    None."""
    if isinstance(part, normalizers.Sequence | pre_tokenizers.Sequence):
        steps: Iterable[Any] = part  # type: ignore[assignment]  # it lacks a stub for __iter__
        for step in steps:
            yield from steps_of(step)
    elif part is not None:
        yield part


def decoder_steps(decoder: decoders.Decoder | None) -> tuple[Step, ...]:
    """Return the steps of a decoder, also those of a sequence inside it; none for None."""
    if decoder is None:
        return ()
    return tuple(_flat(json.loads(decoder.__getstate__())))


def _flat(step: Step) -> Iterator[Step]:
    if step["type"] == "Sequence":
        for inner in step["decoders"]:
            yield from _flat(inner)
    else:
        yield step
