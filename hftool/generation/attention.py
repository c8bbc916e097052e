"""Which earlier tokens the heads of a model look at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from hftool.errors import HftoolError
from hftool.generation.mask_filling import mask_id, with_own_mask
from hftool.generation.next_token import end_of
from hftool.generation.prefix_cache import require_context
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_language_model
from hftool.models.model_errors import model_errors
from hftool.options.inputs import PromptOptions
from hftool.options.model import LoadOptions
from hftool.prompting.prompt import Prompt, prompt_ids

Kind = Literal["self", "encoder", "decoder", "cross"]
MOST_WEIGHTS = 2**27  # of all heads: 0.5 GB

KINDS: dict[str, Kind] = {
    "attentions": "self",
    "encoder_attentions": "encoder",
    "decoder_attentions": "decoder",
    "cross_attentions": "cross",
}
"""The kinds of attention by the names in transformers' outputs."""


@dataclass(frozen=True)
class AttentionMap:
    """All weights of one kind of attention.

    Attributes:
        queries: the tokens that look.
        keys: the tokens that are looked at.
        layers: the weights of each layer that has such heads, by its number from 1: float32
            [heads, queries, keys].
        position: the query that records are about.
    """

    kind: Kind
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    layers: dict[int, torch.Tensor]
    position: int


@dataclass(frozen=True, slots=True)
class HeadAttention:
    """How a head spreads its attention from the token at `position` over all tokens: the `weights`,
    in their order, which sum to 1 in most models.

    Layers and heads count from 1. `attention` is `self`, or in an encoder-decoder `encoder` (the
    source looks at itself), `decoder` (the text does), or `cross` (the text looks at the source).
    """

    attention: Kind
    layer: int
    head: int
    position: int
    token: str
    weights: tuple[float, ...]


def heads(maps: Sequence[AttentionMap]) -> Iterator[HeadAttention]:
    """Yield a record for each head of each layer."""
    for each in maps:
        token = each.queries[each.position]
        for layer, weights in each.layers.items():
            for head, rows in enumerate(weights[:, each.position].tolist(), 1):
                yield HeadAttention(each.kind, layer, head, each.position, token, tuple(rows))


def attention_of_prompt(
    load: LoadOptions, prompt: Prompt, prompting: PromptOptions, position: str | None
) -> list[AttentionMap]:
    """Load a model, and return its attention in a prompt. Raises: as `attention_maps`."""
    language_model = load_language_model(load, masked=True, fast=False)
    tokenizer = language_model.tokenizer
    if language_model.is_masked and isinstance(prompt, str):
        prompt = with_own_mask(tokenizer, prompt)
    ids = prompt_ids(tokenizer, prompt, prompting)
    return attention_maps(language_model, ids, position)


@torch.inference_mode()
def attention_maps(
    language_model: LanguageModel, ids: Sequence[int], position: str | None
) -> list[AttentionMap]:
    """Return the weights of each kind of attention in a text, as transformers computes them
    eagerly.

    Args:
        position: the query that records are about; None for the first mask, or the last token.

    Raises:
        HftoolError: the model has no attention that it can return, the text does not fit the
            context, or is too long for the weights of all heads.
        UsageError: the text does not have this position.
    """
    model = language_model.model
    asked = end_of(position, len(ids)) - 1
    if position is None and language_model.is_masked:
        own = mask_id(language_model.tokenizer)
        asked = next((i for i, token_id in enumerate(ids) if token_id == own), asked)
    begin, source = language_model.split_prompt(ids)
    require_context(language_model, len(begin))
    _require_few(language_model, max(len(begin), len(source)))
    language_model.require_known(ids)
    inputs = _inputs(language_model, begin, source)
    with model_errors():
        model.set_attn_implementation("eager")
        output = model(**inputs, output_attentions=True, return_dict=True)
    name = language_model.tokenizer.token_text
    texts = {"text": tuple(map(name, begin)), "source": tuple(map(name, source))}
    maps = []
    for field, kind in KINDS.items():
        queries = texts["source" if kind == "encoder" else "text"]
        keys = texts["source" if kind in ("encoder", "cross") else "text"]
        layers = _layers(getattr(output, field, None) or (), (len(queries), len(keys)))
        if layers:
            at = len(begin) - 1 if kind in ("decoder", "cross") else asked
            maps.append(AttentionMap(kind, queries, keys, layers, at))
    if not maps:
        raise HftoolError(
            f"{language_model.name} returns no attention: not every model has heads that weigh"
            " each token"
        )
    return maps


def _inputs(
    language_model: LanguageModel, ids: Sequence[int], source: Sequence[int]
) -> dict[str, Any]:
    """Return what the model gets: the ids [1, tokens], those of a source in an encoder-decoder,
    and no cache."""
    model = language_model.model
    text = torch.tensor([ids], device=model.device)
    inputs: dict[str, Any] = {"input_ids": text}
    if source:
        read = torch.tensor([list(source)], device=model.device)
        inputs = {"input_ids": read, "decoder_input_ids": text}
    elif language_model.is_masked:
        inputs = {model.main_input_name: text}
    inputs["attention_mask"] = torch.ones_like(next(iter(inputs.values())))
    if "use_cache" in language_model.argument_names:
        inputs["use_cache"] = False
    return inputs


def _layers(weights: Sequence[Any], shape: tuple[int, int]) -> dict[int, torch.Tensor]:
    """Return the weights of the layers that have one for each query and key: float32 [heads,
    queries, keys]; hybrid models have layers without.

    Args:
        weights: those of each layer [1, heads, queries, keys].
        shape: the numbers of queries and of keys.
    """
    return {
        number: layer[0].float().cpu()
        for number, layer in enumerate(weights, 1)
        if torch.is_tensor(layer) and layer.ndim == 4 and layer.shape[-2:] == shape
    }


def _require_few(language_model: LanguageModel, tokens: int) -> None:
    """Raise where a text has too many tokens for the weights of all heads.

    Raises:
        HftoolError: with how many tokens fit.
    """
    config = language_model.model.config.get_text_config()
    heads_ = getattr(config, "num_attention_heads", 1) * getattr(config, "num_hidden_layers", 1)
    most = int((MOST_WEIGHTS / heads_) ** 0.5)
    if tokens > most:
        raise HftoolError(
            f"the prompt has {tokens} tokens; --attention of {language_model.name} takes {most}",
            "shorten it: `hftool encode --max-tokens N` shows where it would be cut",
        )
