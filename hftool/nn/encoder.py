"""BERT, DistilBERT and RoBERTa classifiers in plain torch, for the same reasons as
`hftool.nn.decoder`.

This module has the operations of transformers 5.23's classes, except that it computes the last
layer only for the first token, which is all that the head reads: the scores agree except for the
last digits. transformers computes any model whose config has something unknown here.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hftool.json_files import read_json
from hftool.nn.architectures import (
    ENCODER_MODEL_TYPES,
    NotComputed,
    computed_model_type,
    named_architecture,
)
from hftool.nn.encoder_families import FAMILIES, Family
from hftool.nn.kernels import attention
from hftool.nn.quantized_linear import Bits
from hftool.nn.weights import Weights, embedded, read_weights

# The values of config.json that are computed here; a model with any other is left to transformers.
# What is neither here nor a size has no effect on transformers' classes.
SUPPORTED_VALUES: Mapping[str, tuple[Any, ...]] = {
    "_attn_implementation": (None, "sdpa"),
    "add_cross_attention": (False,),
    "attn_implementation": (None, "sdpa"),
    "chunk_size_feed_forward": (0,),
    "fusion_config": (None,),
    "is_causal": (False,),
    "is_decoder": (False,),
    "output_attentions": (False,),
    "position_embedding_type": ("absolute",),
    "problem_type": (
        None,
        "single_label_classification",
        "multi_label_classification",
        "regression",
    ),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
    "transformers_weights": (None,),
}
log = logging.getLogger("hftool")

_LABEL_INDEX = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of a model, and its labels by the index of their logit."""

    hidden: int
    width: int
    layers: int
    heads: int
    vocab_size: int
    type_vocab_size: int
    max_position_embeddings: int
    layer_norm_eps: float
    id2label: dict[int, str]
    pad_token_id: int | None
    problem_type: str | None

    @property
    def num_labels(self) -> int:
        """The number of logits per text."""
        return len(self.id2label)


@dataclass(frozen=True)
class ClassifierOutput:
    """Logits [sequences, labels]."""

    logits: torch.Tensor


class Encoder(nn.Module):
    """An encoder with a classification head, for inference.

    It is called as transformers' classes are, with those of their arguments that hftool uses.
    """

    def __init__(self, config: EncoderConfig, family: Family, weights: Weights) -> None:
        super().__init__()
        self.config = config
        self.dtype = weights.dtype
        self.device = torch.device("cpu")
        tables = f"{family.embeddings}."
        self._words = weights.tensor(f"{tables}word_embeddings.weight")
        self._positions = weights.tensor(f"{tables}position_embeddings.weight")
        self._types = None
        if config.type_vocab_size:
            self._types = weights.tensor(f"{tables}token_type_embeddings.weight")
        self._norm = _Norm(weights, f"{tables}LayerNorm", config)
        self._layers = [
            _Layer(
                *(config, family, weights, family.layer.format(i)),
                first_only=i == config.layers - 1,
            )
            for i in range(config.layers)
        ]
        name, self._activation = family.pooler
        self._pooler = weights.fused(name)
        self._classifier = weights.fused(family.classifier)
        self._padding_id = config.pad_token_id if family.counts_from_padding else None

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> ClassifierOutput:
        """Return the logits for each sequence of `input_ids` [sequences, tokens].

        Args:
            attention_mask: [sequences, tokens], 0 for padding.
            token_type_ids: [sequences, tokens], 0 or 1: the text of a pair that a token belongs to.

        Raises:
            HftoolError: a token id has no row in the embeddings.
        """
        hidden = embedded(input_ids, self._words)
        if self._types is not None:
            types = self._types[0] if token_type_ids is None else self._types[token_type_ids]
            hidden = hidden + types
        hidden = self._norm(hidden + self._positions[self._places(input_ids)])
        mask = None
        if attention_mask is not None and not bool(attention_mask.all()):
            mask = attention_mask.bool()[:, None, None]
        for layer in self._layers:
            hidden = layer.forward(hidden, mask)
        first = hidden[:, 0].contiguous()
        return ClassifierOutput(self._classifier(self._activation(self._pooler(first))))

    @property
    def first_position(self) -> int:
        """The row of the first token in the table of positions."""
        return 0 if self._padding_id is None else self._padding_id + 1

    def _places(self, input_ids: torch.Tensor) -> Any:
        """Return the rows of the tokens in the table of positions."""
        if self._padding_id is None:
            return slice(input_ids.shape[1])
        filled = (input_ids != self._padding_id).long()
        return filled.cumsum(1) * filled + self._padding_id


class _Norm:
    """A layer normalization."""

    def __init__(self, weights: Weights, name: str, config: EncoderConfig) -> None:
        self._weight = weights.tensor(f"{name}.weight")
        self._bias = weights.tensor(f"{name}.bias")
        self._eps = config.layer_norm_eps

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(hidden, self._weight.shape, self._weight, self._bias, self._eps)


class _Layer:
    """Attention, then a feed-forward network, each added to its input and then normalized.

    Args:
        first_only: compute only the first token of each sequence.
    """

    def __init__(
        self,
        config: EncoderConfig,
        family: Family,
        weights: Weights,
        prefix: str,
        *,
        first_only: bool,
    ) -> None:
        parts = {part: f"{prefix}{name}" for part, name in family.parts.items()}
        attention = [f"{prefix}{name}" for name in family.attention]
        self._size = config.hidden // config.heads
        self._first_only = first_only
        self._attention = [weights.fused(*attention)]
        if first_only:
            self._attention = [weights.fused(attention[0]), weights.fused(*attention[1:])]
        self._out = weights.fused(parts["out"])
        self._attention_norm = _Norm(weights, parts["attention_norm"], config)
        self._up = weights.fused(parts["up"], gelu=True)
        self._down = weights.fused(parts["down"])
        self._norm = _Norm(weights, parts["norm"], config)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the hidden states [sequences, tokens, hidden] after this layer."""
        if self._first_only:
            of_first, of_others = self._attention
            context, hidden = hidden, hidden[:, :1].contiguous()
            query = self._by_heads(of_first(hidden))
            keys, values = self._by_heads(of_others(context)).chunk(2, dim=1)
        else:
            [of_all] = self._attention
            query, keys, values = self._by_heads(of_all(hidden)).chunk(3, dim=1)
        output = attention(query, keys, values, mask)
        if output is None:
            output = F.scaled_dot_product_attention(query, keys, values, mask)
            output = output.transpose(1, 2).reshape(hidden.shape)
        output = self._out(output)
        hidden = self._attention_norm(output.add_(hidden))
        return self._norm(self._down(self._up(hidden)).add_(hidden))

    def _by_heads(self, states: torch.Tensor) -> torch.Tensor:
        """Split the last dimension: [sequences, heads, tokens, size]. The heads of concatenated
        keys and values follow each other."""
        sequences, tokens, width = states.shape
        size = self._size
        return states.view(sequences, tokens, width // size, size).transpose(1, 2)


def read_encoder(
    folder: Path,
    dtype: torch.dtype,
    bits: Bits | None,
    kept: dict[str, torch.Tensor] | None = None,
) -> Encoder | None:
    """Return the classifier in a folder; None if this module can't compute it.

    `kept` has what was made of its weights before, and gets what is made now.

    Raises:
        HftoolError: config.json or a file of weights is broken.
    """
    content = read_json(folder / "config.json")
    try:
        model_type = computed_model_type(content, ENCODER_MODEL_TYPES)
        if model_type is None:
            raise NotComputed(f"its architecture is {named_architecture(content)}")
        family = FAMILIES[model_type]
        config = read_config(content, family)
        unused = re.compile(family.unused)
        weights = read_weights(
            folder,
            _weight_shapes(config, family),
            lambda name: None if unused.search(name) else name,
        )
    except NotComputed as reason:
        log.debug("%s: transformers computes it, because %s", folder, reason)
        return None
    return Encoder(config, family, Weights(weights, dtype, bits, inputs_too=True, kept=kept))


def read_config(config: Mapping[str, Any], family: Family) -> EncoderConfig:
    """Return the content of a config.json.

    Raises:
        NotComputed: it has anything that this code does not compute.
    """
    for name, values in SUPPORTED_VALUES.items():
        if name in config and config[name] not in values:
            raise NotComputed(f"its {name} is {config[name]!r}")
    sizes: dict[str, Any] = {name: config.get(key) for name, key in family.sizes.items()}
    sizes["vocab_size"] = config.get("vocab_size")
    sizes["max_position_embeddings"] = config.get("max_position_embeddings")
    sizes["type_vocab_size"] = config.get("type_vocab_size", 0)
    pad, labels = config.get("pad_token_id", family.pad), config.get("id2label")
    eps, activation = config.get("layer_norm_eps", 1e-12), sizes.pop("activation")
    if activation != "gelu" or type(eps) is not float:
        raise NotComputed(f"its activation is {activation!r}, and its layer_norm_eps {eps!r}")
    if any(type(size) is not int for size in sizes.values()) or (
        type(pad) is not int and (pad is not None or family.counts_from_padding)
    ):
        raise NotComputed("its sizes are not whole numbers")
    if min(sizes["layers"], sizes["heads"]) < 1 or sizes["hidden"] % sizes["heads"]:
        raise NotComputed("its number of heads does not fit")
    if not isinstance(labels, dict) or not all(_LABEL_INDEX.fullmatch(str(i)) for i in labels):
        raise NotComputed("its id2label does not number the labels")
    return EncoderConfig(
        **sizes,
        layer_norm_eps=eps,
        id2label={int(i): label for i, label in labels.items()},
        pad_token_id=pad,
        problem_type=config.get("problem_type"),
    )


def _weight_shapes(config: EncoderConfig, family: Family) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight by its name in a checkpoint."""
    hidden, width = config.hidden, config.width
    linear = {
        family.pooler[0]: (hidden, hidden),
        family.classifier: (config.num_labels, hidden),
    }
    norms = [f"{family.embeddings}.LayerNorm"]
    for i in range(config.layers):
        prefix, parts = family.layer.format(i), family.parts
        for name in (*family.attention, parts["out"]):
            linear[prefix + name] = (hidden, hidden)
        linear[prefix + parts["up"]] = (width, hidden)
        linear[prefix + parts["down"]] = (hidden, width)
        norms += [prefix + parts["attention_norm"], prefix + parts["norm"]]
    tables = f"{family.embeddings}."
    shapes: dict[str, tuple[int, ...]] = {
        f"{tables}word_embeddings.weight": (config.vocab_size, hidden),
        f"{tables}position_embeddings.weight": (config.max_position_embeddings, hidden),
    }
    if config.type_vocab_size:
        shapes[f"{tables}token_type_embeddings.weight"] = (config.type_vocab_size, hidden)
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    return shapes
