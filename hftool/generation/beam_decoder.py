"""hftool's own decoder with the method `generate` of transformers, which searches with beams."""

from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from hftool.nn.decoder import Decoder
from hftool.nn.key_value_cache import KeyValueCache
from hftool.nn.rope import length_dependence


class BeamDecoder(GenerationMixin):
    """A decoder that continues one prompt, with all that `generate` uses of a model."""

    main_input_name = "input_ids"
    _is_stateful = False

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._length_dependence = length_dependence(decoder.config)
        self.config: Any = PreTrainedConfig()
        self.config.vocab_size = decoder.config.vocab_size
        make: Any = GenerationConfig
        self.generation_config = make()
        self.device, self.dtype = decoder.device, decoder.dtype

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `forward` makes the cache

    def get_experts_implementation(self) -> dict[str, str]:
        """Return what `generate` would change on a GPU: nothing."""
        return {}

    def _reorder_cache(self, cache: KeyValueCache, beams: torch.Tensor) -> KeyValueCache:
        cache.select(beams.long())
        return cache

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Any = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments for `forward`: without the cache if keys of a longer text are others
        (longrope)."""
        dependence, cache = self._length_dependence, past_key_values
        if cache and dependence and dependence.differ(cache.length, input_ids.shape[1]):
            cache = None
        return {"input_ids": input_ids[:, cache.length if cache else 0 :], "past_key_values": cache}

    def forward(
        self,
        input_ids: torch.Tensor,
        past_key_values: KeyValueCache | None = None,
        attention_mask: torch.Tensor | None = None,
        use_cache: bool = True,
        return_dict: bool = True,
    ) -> CausalLMOutputWithPast:
        """Return the logits after the last token [beams, 1, vocabulary], and the cache.

        Args:
            input_ids: [beams, tokens], those that follow the cache.
            attention_mask: without effect, as what comes after; guidance passes them.
        """
        cache, beams = past_key_values, len(input_ids)
        at_prompt = cache is None and bool((input_ids == input_ids[:1]).all())
        if cache is None:
            cache = KeyValueCache(self._decoder.config.windows)
        new_ids = input_ids[:1] if at_prompt else input_ids
        logits = self._decoder(new_ids, cache=cache, logits_to_keep=1).logits
        if at_prompt:  # it is the same for all beams
            cache, logits = cache.repeated(beams), logits.expand(beams, -1, -1)
        output: Any = CausalLMOutputWithPast
        result: CausalLMOutputWithPast = output(logits=logits, past_key_values=cache)
        return result

    __call__ = forward
