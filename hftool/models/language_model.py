"""A language model in memory: its forward pass, and what its files say about it."""

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from hftool.errors import HftoolError
from hftool.models.model_errors import model_errors
from hftool.nn.architectures import context_length
from hftool.nn.cache import Cache, can_pad, new_cache
from hftool.nn.encoder import Encoder
from hftool.nn.rope import LengthDependence, forget_lengths, length_dependence
from hftool.nn.threads import threads
from hftool.nn.weights import unknown_token
from hftool.tokenization.tokenizer import Tokenizer

LARGEST_ID = 2**31  # no vocabulary is as large; -1 stands for no token
_LANGUAGE = re.compile(r"__[a-z]{2,3}__|>>\w+<<|<2\w+>|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")


@dataclass(eq=False)
class LanguageModel:
    """A causal language model with its tokenizer.

    `model` is in evaluation mode: one of transformers' classes, or `hftool.nn.decoder.Decoder`,
    which is called like them. `keeps_cache` is set to False when its key-value cache turns out not
    to work; `pads` is None until it is known whether it computes padded prompts rightly,
    `is_causal` until it is known whether its logits depend only on the tokens before. A masked
    model fills in masks, and can't continue a text. An encoder-decoder reads `source`, and writes
    in the language `target_lang`.
    """

    name: str
    model: Any
    tokenizer: Tokenizer
    generation_config: dict[str, Any]
    keeps_cache: bool = True
    pads: bool | None = None
    is_causal: bool | None = None
    is_masked: bool = False
    source: tuple[int, ...] = ()
    target_lang: str | None = None

    @cached_property
    def context_length(self) -> int | None:
        """The maximum number of tokens the model can see, None if its config has no limit."""
        config = self.model.config.get_text_config()
        values = config.to_dict() if hasattr(config, "to_dict") else vars(config)
        length = context_length(values)
        return None if length is None else length - first_position(self.model)

    @cached_property
    def length_dependence(self) -> LengthDependence | None:
        """How the angles of the model's position embeddings depend on the length of the text."""
        return length_dependence(self.model.config.get_text_config())

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids of the tokens that end a text."""
        config = self.model.config
        ids = self.generation_config.get("eos_token_id", getattr(config, "eos_token_id", None))
        if ids is None:
            ids = getattr(config.get_text_config(), "eos_token_id", None)
        if ids is None:
            eos = self.tokenizer.special_tokens.get("eos_token")
            ids = self.tokenizer.backend.token_to_id(eos) if eos else None
        listed = ids if isinstance(ids, list) else [ids]
        return frozenset(i for i in listed if type(i) is int and 0 <= i < LARGEST_ID)

    @cached_property
    def is_encoder_decoder(self) -> bool:
        """Whether the prompt is a source that an encoder reads, and not the beginning of a text."""
        return bool(getattr(self.model.config, "is_encoder_decoder", False))

    def _token_id(self, name: str) -> int | None:
        """Return the id of a token that the model's files name, None if they don't."""
        config = self.model.config
        given = [self.generation_config.get(name)]
        given += [getattr(c, name, None) for c in (config, config.get_text_config(decoder=True))]
        found = next((value for value in given if value is not None), None)
        return found[0] if isinstance(found, list) else found

    def reading(self, source: Sequence[int]) -> "LanguageModel":
        """Return the model for texts of this source."""
        bound = copy.copy(self)
        bound.source = tuple(source)
        return bound

    def split_prompt(self, ids: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
        """Return the tokens that a text begins with, and its source.

        Raises:
            HftoolError: the model does not know the language, or the source is too long.
        """
        if not self.is_encoder_decoder:
            return list(ids), ()
        start = self._token_id("decoder_start_token_id")
        begins = [self._token_id("bos_token_id") or 0 if start is None else start]
        source = list(ids)
        if self.target_lang is not None:
            token_id, reads = language_token(self.tokenizer, self.target_lang)
            (source.insert(0, token_id) if reads else begins.append(token_id))
        config = self.model.config
        limit = getattr(config, "max_encoder_position_embeddings", None) or self.context_length
        if limit is not None and len(source) > limit:
            raise HftoolError(
                f"the prompt has {len(source)} tokens; the encoder of {self.name} reads {limit}",
                "shorten it: `hftool encode --max-tokens N` shows where it would be cut",
            )
        return begins, tuple(source)

    @torch.inference_mode()
    def encode(self, sources: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return the arguments that give a decoder its sources: none without an encoder. A source
        that is there several times is computed once.

        Raises:
            HftoolError: as `forward`, or an encoder-decoder has no source.
        """
        if not self.is_encoder_decoder:
            return {}
        unique = list(dict.fromkeys(map(tuple, sources)))
        width = max(map(len, unique), default=0)
        if not width:
            raise HftoolError(
                f"{self.name} is an encoder-decoder",
                "`generate`, `sample`, `topk` and `score --given` take those",
            )
        device = self.model.device
        padding = self._token_id("pad_token_id") or 0
        rows = [[*source, *[padding] * (width - len(source))] for source in unique]
        ids = torch.tensor(rows, device=device)
        mask = torch.tensor([[i < len(s) for i in range(width)] for s in unique], device=device)
        with model_errors():
            encoder = self.model.get_encoder()
            outputs = encoder(input_ids=ids, attention_mask=mask.long(), return_dict=True)
        encoded = {"encoder_outputs": outputs, "attention_mask": mask.long()}
        if len(unique) == len(sources):
            return encoded
        places = {source: i for i, source in enumerate(unique)}
        return selected_sources(encoded, [places[tuple(source)] for source in sources])

    @cached_property
    def can_batch(self) -> bool:
        """Whether prompts of different lengths can be padded to one batch, as far as the model's
        signature tells."""
        return can_pad(self.model)

    @cached_property
    def argument_names(self) -> frozenset[str]:
        """The names of the arguments that the model takes."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    @cached_property
    def embedding_rows(self) -> int:
        """The number of token ids that the model can read."""
        return embedding_rows(self.model)

    def require_known(self, ids: Sequence[int]) -> None:
        """Raise where the model has no embedding for one of these token ids.

        Raises:
            HftoolError: with the id and the number of embeddings.
        """
        if ids and max(ids) >= self.embedding_rows:
            raise unknown_token(max(ids), self.embedding_rows)

    def new_cache(self, *, rewinds: bool = False) -> Cache | None:
        """Return an empty key-value cache, None if the model works without one.

        `rewinds` lets it be cropped although the model has a sliding window, for more memory.
        """
        return new_cache(self.model, rewinds=rewinds) if self.keeps_cache else None

    def forward(
        self,
        input_ids: torch.Tensor,
        cache: Cache | None = None,
        *,
        last: int | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """Return the logits after each token: float32 [sequences, tokens, vocabulary].

        Args:
            input_ids: [sequences, tokens].
            cache: has the tokens that come before, and gets these as well.
            last: return only the logits after this number of last tokens.
            inputs: other arguments of the model.

        Raises:
            HftoolError: the memory does not suffice, the model has no embedding for an id, or its
                files don't fit together.
        """
        if (most := int(input_ids.max())) >= self.embedding_rows:
            raise unknown_token(most, self.embedding_rows)
        if last is not None and "logits_to_keep" in self.argument_names:
            inputs["logits_to_keep"] = last
        if self.length_dependence is not None and self.length_dependence.grows:
            forget_lengths(self.model)
        # In float32 the number of threads changes the last bits of a product.
        if input_ids.device.type == "cpu" and self.model.dtype != torch.float32:
            threads.adapt()
        with model_errors():
            if cache is None:
                if "use_cache" in self.argument_names:
                    inputs["use_cache"] = False
                name = "decoder_input_ids" if self.is_encoder_decoder else "input_ids"
                if self.is_masked:
                    name = self.model.main_input_name  # Perceiver's is "inputs"
                output = self.model(**{name: input_ids}, **inputs)
            else:
                output = cache.run(self.model, input_ids, **inputs)
        logits = output.logits if last is None else output.logits[:, -last:]
        result: torch.Tensor = logits.float()
        return result


def selected_sources(encoded: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Return the sources with these indices of what `LanguageModel.encode` returned."""
    if not encoded:
        return {}
    outputs, mask = encoded["encoder_outputs"], encoded["attention_mask"]
    indices = torch.tensor(rows, device=mask.device)
    outputs = type(outputs)(last_hidden_state=outputs.last_hidden_state[indices])
    return {"encoder_outputs": outputs, "attention_mask": mask[indices]}


def language_token(tokenizer: Tokenizer, code: str) -> tuple[int, bool]:
    """Return the token of a language to translate into, and whether it comes before the source
    (Marian, MADLAD) and not before the translation (mBART, M2M-100, NLLB).

    Raises:
        HftoolError: the tokenizer has no such token.
    """
    in_source = code.startswith((">>", "<2"))
    forms = {code: in_source, f"__{code}__": False, f">>{code}<<": True, f"<2{code}>": True}
    for token, reads in forms.items():
        token_id = tokenizer.backend.token_to_id(token)
        if token_id is not None:
            return token_id, reads
    known = sorted(t for t in tokenizer.backend.get_vocab() if _LANGUAGE.fullmatch(t))
    hint = f"it has {', '.join(known[:8])} …" if known else "it has no tokens of languages"
    raise HftoolError(f"the tokenizer has no token for the language '{code}'", hint)


def embedding_rows(model: Any) -> int:
    """Return the number of token ids that a model can read."""
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):  # not one of transformers' usual classes
        config = model.config
        return int(getattr(config, "get_text_config", lambda: config)().vocab_size)
    return len(weight)


def first_position(model: Any) -> int:
    """Return the number that a model gives to the first token: RoBERTa and related models number
    them from one above the id of the padding token."""
    if isinstance(model, Encoder):
        return model.first_position
    embeddings: Any = getattr(getattr(model, "base_model", None), "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1
