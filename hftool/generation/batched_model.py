"""A language model that continues several sequences, which may begin and end at any time."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from hftool.errors import HftoolError
from hftool.generation.prefix_cache import PREFILL_SLICE, CachedModel
from hftool.models.language_model import LanguageModel, selected_sources
from hftool.models.model_errors import model_errors
from hftool.nn.cache import Cache

log = logging.getLogger("hftool")

PADDING_SAMPLE = 16  # tokens to try padding with
# By how much of their size the logits of a padded prompt may differ: by rounding, no more.
PADDING_ERROR, PADDING_ERROR_HALF = 0.003, 0.15
SIMILAR_LENGTH = 8  # tokens by which prompts that are read together may always differ


class BatchedModel:
    """A language model, and the key-value cache of several sequences.

    The cache has a column for each token of the longest sequence. All sequences end in the last
    column, so the shorter ones are padded on the left.

    Args:
        checked: first compute a short padded batch, to see if the model gives its rows what they
            have alone.
    """

    def __init__(self, language_model: LanguageModel, *, checked: bool = True) -> None:
        self._language_model = language_model
        self._cache: Cache | None = None
        self._mask = torch.empty(0)  # [sequences, columns], 0 for padding
        self._source: dict[str, Any] = {}
        self._checked = checked

    @property
    def can_add(self) -> bool:
        """Whether sequences can be added to others: not in an encoder-decoder, whose decoder
        counts its tokens from the first column."""
        return not self._language_model.is_encoder_decoder

    @torch.inference_mode()
    def add(
        self, rows: Sequence[Sequence[int]], sources: Sequence[Sequence[int]] = ()
    ) -> torch.Tensor:
        """Add sequences of ids after those that are there, and return the logits after each of the
        new ones: float32 [rows, vocabulary].

        Args:
            sources: what an encoder-decoder reads for each row.

        Raises:
            HftoolError: there is not enough memory, or the model can't compute these rows together;
                then nothing has been added.
        """
        if self._checked and len(rows) + len(self._mask) > 1:
            read = sources if self._language_model.is_encoder_decoder else rows
            self._require_padding(max(read, key=len))
        if not self.can_add:
            return self._prefill(rows, sources)
        parts, logits = [], []
        for group in _similar(rows):
            parts.append(BatchedModel(self._language_model, checked=False))
            logits.append(parts[-1]._prefill(group, ()))
        self._join(parts)
        return torch.cat(logits)

    def _join(self, parts: list["BatchedModel"]) -> None:
        """Take over the sequences of other batches, after those that are here."""
        if not len(self._mask):
            first = parts.pop(0)
            self._cache, self._mask = first._cache, first._mask
        if not parts:
            return
        assert self._cache is not None  # as `LanguageModel.can_batch` requires
        with model_errors():
            self._cache.join([part._cache for part in parts])
        masks = [self._mask, *(part._mask for part in parts)]
        columns = max(mask.shape[1] for mask in masks)
        self._mask = torch.cat([F.pad(mask, (columns - mask.shape[1], 0)) for mask in masks])

    def _prefill(
        self, rows: Sequence[Sequence[int]], sources: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Begin with these rows, and return the logits after each: float32 [rows, vocabulary]."""
        width = max(map(len, rows))
        self._source = self._language_model.encode(sources)
        if self._source and min(map(len, rows)) < width:
            raise HftoolError("the texts begin with different numbers of tokens")
        device = self._language_model.model.device
        padded = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=device)
        filled = torch.tensor(
            [[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device
        )
        self._cache, self._mask = self._language_model.new_cache(), filled[:, :0]
        logits = torch.empty(0)
        for start in range(0, width, PREFILL_SLICE):
            part = slice(start, start + PREFILL_SLICE)
            logits = self._forward(padded[:, part], filled[:, part])
        return logits

    @torch.inference_mode()
    def step(self, ids: Sequence[int]) -> torch.Tensor:
        """Add an id to each row, and return the logits after it: float32 [rows, vocabulary]."""
        column = torch.tensor(ids, device=self._mask.device)[:, None]
        return self._forward(column, torch.ones_like(column))

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Continue with only these rows."""
        if not rows:
            self._cache, self._mask, self._source = None, torch.empty(0), {}
            return
        indices = torch.tensor(rows, device=self._mask.device)
        assert self._cache is not None  # as `LanguageModel.can_batch` requires
        self._cache.select(indices)
        self._mask = self._mask[indices]
        if self.can_add:
            empty = int(self._mask.any(0).int().argmax())
            self._cache.forget(empty)
            self._mask = self._mask[:, empty:]
        self._source = selected_sources(self._source, rows)

    def cache_bytes(self) -> int:
        """Return the size of the keys and values."""
        return self._cache.nbytes if self._cache is not None else 0

    def _forward(self, ids: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        """Add ids [rows, tokens], and return the logits after the last of each row: float32 [rows,
        vocabulary].

        Args:
            filled: 1 for a token, 0 for padding [rows, tokens].
        """
        language_model = self._language_model
        self._mask = torch.cat([self._mask, filled], dim=1)
        dependence = language_model.length_dependence
        if dependence is not None and dependence.differ(0, int(self._mask.sum(1).max())):
            raise HftoolError("the positions of a text depend on its length")
        if self._source:
            return language_model.forward(ids, self._cache, last=1, **self._source)[:, 0]
        inputs = {"attention_mask": self._mask}
        if "position_ids" in language_model.argument_names:
            positions = (self._mask.cumsum(1) - 1).clamp(min=0)
            inputs["position_ids"] = positions[:, -ids.shape[1] :]
        return language_model.forward(ids, self._cache, last=1, **inputs)[:, 0]

    def _require_padding(self, ids: Sequence[int]) -> None:
        """Raise where the model gives padded rows other logits than those that they have alone.

        No signature tells this: some models count padding as positions, or let it into a state.
        """
        language_model = self._language_model
        if language_model.pads is None:
            sample = (list(ids) * PADDING_SAMPLE)[:PADDING_SAMPLE]
            row, next_id = sample[: PADDING_SAMPLE // 4], ids[0]
            rows: list[list[int]] = [sample, row]
            sources: list[list[int]] = []
            if language_model.is_encoder_decoder:
                language_model, sources = language_model.reading(row), rows
                row, _ = language_model.split_prompt(row)
                rows = [row, row]
            together, alone = (
                BatchedModel(language_model, checked=False),
                CachedModel(language_model),
            )
            pairs = [
                (together._prefill(rows, sources)[1], alone.next_logits(row)),
                (together.step([next_id, next_id])[1], alone.next_logits([*row, next_id])),
            ]
            exact = language_model.model.dtype.itemsize == 4
            limit = PADDING_ERROR if exact else PADDING_ERROR_HALF
            far = max(float((a - b).norm() / (b - b.mean()).norm()) for a, b in pairs)
            self._language_model.pads = far < limit
            log.debug("a padded prompt has logits that differ by %.2g of their size", far)
        if not self._language_model.pads:
            raise HftoolError("the model does not ignore padding")


def _similar(rows: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Yield neighbouring rows of about the same length together, so that padding costs little."""
    group: list[Sequence[int]] = []
    for row in rows:
        lengths = [len(row), *map(len, group)]
        if max(lengths) - min(lengths) > max(SIMILAR_LENGTH, min(lengths) // 4):
            yield group
            group = []
        group.append(row)
    yield group
