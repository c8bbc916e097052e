"""The logits processors that a model's generation_config.json asks for beside hftool's own filters.

transformers makes them, as for its own `generate`. This takes a second to import, so
`hftool.generation.filters` does it only for a model that has such fields.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from transformers.generation.utils import GenerationMixin

from hftool.errors import HftoolError
from hftool.generation.prefix_cache import CachedModel
from hftool.models.language_model import LanguageModel


def named_processors(
    language_model: LanguageModel,
    fields: Mapping[str, Any],
    prompt_ids: Sequence[int],
    limit: int | None,
    *,
    sampled: bool,
) -> list[tuple[str, LogitsProcessor]]:
    """Return the logits processors for fields of a generation_config, each with the field's name.

    Args:
        fields: those that have an effect.
        limit: the number of tokens to generate; None if another one always follows.
        sampled: whether tokens are drawn; otherwise the processors that only matter then are left
            out.
    """
    fields = dict(fields)
    encoded = language_model.source or prompt_ids  # a decoder alone reads the prompt itself
    guidance = fields.pop("guidance_scale", None)
    if language_model.is_encoder_decoder:  # it has no logits without its source
        guidance = None
    if limit is None:
        fields.pop("forced_eos_token_id", None)  # it is forced at the end
    if "min_new_tokens" in fields:
        fields.pop("min_length", None)
    size = fields.get("encoder_no_repeat_ngram_size")
    if isinstance(size, int) and size > len(encoded):  # transformers would make `size` lists
        del fields["encoder_no_repeat_ngram_size"]

    def processors(some: Mapping[str, Any]) -> list[Any]:
        return _processors(language_model, some, prompt_ids, limit, sampled=sampled)

    names = {type(p): name for name, value in fields.items() for p in processors({name: value})}
    found: list[tuple[str, LogitsProcessor]] = []
    if guidance is not None:
        if type(guidance) not in (int, float):
            raise HftoolError(f"guidance_scale of the model's generation_config is {guidance!r}")
        found.append(("guidance_scale", _Guidance(guidance, language_model, len(prompt_ids))))
    return found + [(names[type(p)], p) for p in processors(fields)]


def _processors(
    language_model: LanguageModel,
    fields: Mapping[str, Any],
    prompt_ids: Sequence[int],
    limit: int | None,
    *,
    sampled: bool,
) -> list[Any]:
    device = language_model.model.device
    encoded = list(language_model.source or prompt_ids)
    make: Any = GenerationConfig
    config = make(
        **fields,
        do_sample=sampled,
        max_length=None if limit is None else len(prompt_ids) + limit,
    )
    ends = sorted(language_model.end_ids)
    config._eos_token_tensor = torch.tensor(ends, device=device) if ends else None
    model: Any = _Model(language_model)
    return list(
        model._get_logits_processor(
            config,
            input_ids_seq_length=len(prompt_ids),
            encoder_input_ids=torch.tensor([encoded], device=device),
            device=device,
        )
    )


class _Model(GenerationMixin):
    """All that transformers' method uses of a model, which may be one of hftool's own."""

    def __init__(self, language_model: LanguageModel) -> None:
        text_config = language_model.model.config.get_text_config()
        self.config: Any = SimpleNamespace(
            is_encoder_decoder=False,
            get_text_config=lambda: SimpleNamespace(vocab_size=text_config.vocab_size),
        )


class _Guidance(UnbatchedClassifierFreeGuidanceLogitsProcessor):
    """Classifier-free guidance (Sanchez et al. 2023) whose logits without the prompt depend only on
    the tokens, so that steps can be taken back."""

    def __init__(self, scale: float, language_model: LanguageModel, prompt_length: int) -> None:
        super().__init__(float(scale), None)
        self._cached_model = CachedModel(language_model, rewinds=True)
        self._prompt_length = prompt_length

    def get_unconditional_logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits after the generated tokens, with only the prompt's last token before
        them: float32 [1, 1, vocabulary]."""
        ids = input_ids[0, self._prompt_length - 1 :].tolist()
        return self._cached_model.next_logits(ids)[None, None]
