"""BERT and DistilBERT classifiers in plain torch, for the same reasons as `hftool.nn.llama`.

This module has the operations of transformers 5.23's classes, except that it computes the last
layer only for the first token, which is all that the head reads: the scores agree except for the
last digits. transformers computes any model whose config has something unknown here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hftool.json_files import read_json
from hftool.nn.architectures import BERT_MODEL_TYPES, computed_model_type
from hftool.nn.quantization import Bits
from hftool.nn.weights import Weights, embedded, read_weights


@dataclass(frozen=True)
class BertFamily:
    """The names that an architecture gives to its parts.

    `sizes` has the keys of its config.json, `embeddings` the prefix of the embedding tables,
    `layer` the prefix of layer `{}`, `attention` and `parts` what follows it. `pooler` is the layer
    between the last encoder layer and the classifier, with its activation.
    """

    sizes: Mapping[str, str]
    embeddings: str
    layer: str
    attention: tuple[str, str, str]
    parts: Mapping[str, str]
    pooler: tuple[str, Any]


FAMILIES = {
    "bert": BertFamily(
        sizes={
            "hidden": "hidden_size",
            "width": "intermediate_size",
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "activation": "hidden_act",
        },
        embeddings="bert.embeddings",
        layer="bert.encoder.layer.{}.",
        attention=("attention.self.query", "attention.self.key", "attention.self.value"),
        parts={
            "out": "attention.output.dense",
            "attention_norm": "attention.output.LayerNorm",
            "up": "intermediate.dense",
            "down": "output.dense",
            "norm": "output.LayerNorm",
        },
        pooler=("bert.pooler.dense", torch.tanh),
    ),
    "distilbert": BertFamily(
        sizes={
            "hidden": "dim",
            "width": "hidden_dim",
            "layers": "n_layers",
            "heads": "n_heads",
            "activation": "activation",
        },
        embeddings="distilbert.embeddings",
        layer="distilbert.transformer.layer.{}.",
        attention=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        parts={
            "out": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "up": "ffn.lin1",
            "down": "ffn.lin2",
            "norm": "output_layer_norm",
        },
        pooler=("pre_classifier", torch.relu),
    ),
}
# The values of config.json that are computed here; a model with any other is left to transformers,
# as is one with a key that is neither a size, nor here, nor among those without an effect.
SUPPORTED_VALUES: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "chunk_size_feed_forward": (0,),
    "is_decoder": (False,),
    "position_embedding_type": ("absolute",),
    "problem_type": (
        None,
        "single_label_classification",
        "multi_label_classification",
        "regression",
    ),
}
WITHOUT_EFFECT = {
    *("_name_or_path", "architectures", "attention_dropout", "attention_probs_dropout_prob"),
    *("bos_token_id", "classifier_dropout", "dropout", "dtype", "eos_token_id", "finetuning_task"),
    *("gradient_checkpointing", "hidden_dropout_prob", "id2label", "initializer_range", "label2id"),
    *("layer_norm_eps", "max_position_embeddings", "model_type", "output_past", "pad_token_id"),
    *("qa_dropout", "seq_classif_dropout", "sinusoidal_pos_embds", "tie_word_embeddings"),
    *("torch_dtype", "transformers_version", "type_vocab_size", "use_cache", "vocab_size"),
}


_LABEL_INDEX = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class BertConfig:
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


class Bert(nn.Module):
    """An encoder with a classification head, for inference.

    It is called as transformers' classes are, with those of their arguments that hftool uses.
    """

    def __init__(self, config: BertConfig, family: BertFamily, weights: Weights) -> None:
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
            _Layer(config, family, weights, family.layer.format(i)) for i in range(config.layers)
        ]
        name, self._activation = family.pooler
        self._pooler = weights.product(name)
        self._classifier = weights.product("classifier")

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
        hidden = self._norm(hidden + self._positions[: input_ids.shape[1]])
        mask = None
        if attention_mask is not None and not bool(attention_mask.all()):
            mask = attention_mask.bool()[:, None, None]
        for layer in self._layers[:-1]:
            hidden = layer.forward(hidden, hidden, mask)
        first = self._layers[-1].forward(hidden[:, :1], hidden, mask)[:, 0]
        return ClassifierOutput(self._classifier(self._activation(self._pooler(first))))


class _Norm:
    """A layer normalization."""

    def __init__(self, weights: Weights, name: str, config: BertConfig) -> None:
        self._weight = weights.tensor(f"{name}.weight")
        self._bias = weights.tensor(f"{name}.bias")
        self._eps = config.layer_norm_eps

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(hidden, self._weight.shape, self._weight, self._bias, self._eps)


class _Layer:
    """Attention, then a feed-forward network, each added to its input and then normalized."""

    def __init__(
        self, config: BertConfig, family: BertFamily, weights: Weights, prefix: str
    ) -> None:
        parts = {part: f"{prefix}{name}" for part, name in family.parts.items()}
        query, *keys_values = (f"{prefix}{name}" for name in family.attention)
        self._size = config.hidden // config.heads
        self._query = weights.product(query)
        self._keys_values = weights.product(*keys_values)
        self._out = weights.product(parts["out"])
        self._attention_norm = _Norm(weights, parts["attention_norm"], config)
        self._up = weights.product(parts["up"])
        self._down = weights.product(parts["down"])
        self._norm = _Norm(weights, parts["norm"], config)

    def forward(
        self, hidden: torch.Tensor, context: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the next hidden states [sequences, tokens, hidden] of some tokens, which attend to
        `context` [sequences, all tokens, hidden]."""
        query = self._by_heads(self._query(hidden))
        keys, values = self._by_heads(self._keys_values(context)).chunk(2, dim=1)
        output = F.scaled_dot_product_attention(query, keys, values, mask)
        output = self._out(output.transpose(1, 2).reshape(hidden.shape))
        hidden = self._attention_norm(output + hidden)
        return self._norm(self._down(F.gelu(self._up(hidden))) + hidden)

    def _by_heads(self, states: torch.Tensor) -> torch.Tensor:
        """Split the last dimension: [sequences, heads, tokens, size]. The heads of concatenated
        keys and values follow each other."""
        sequences, tokens, width = states.shape
        size = self._size
        return states.view(sequences, tokens, width // size, size).transpose(1, 2)


def read_bert(folder: Path, dtype: torch.dtype, bits: Bits | None) -> Bert | None:
    """Return the classifier in a folder; None if this module can't compute it.

    Raises:
        HftoolError: config.json or a file of weights is broken.
    """
    content = read_json(folder / "config.json")
    model_type = computed_model_type(content, BERT_MODEL_TYPES)
    if model_type is None:
        return None
    family = FAMILIES[model_type]
    config = read_config(content, family)
    if config is None:
        return None
    weights = read_weights(folder, _weight_shapes(config, family))
    if weights is None:
        return None
    return Bert(config, family, Weights(weights, dtype, bits, inputs_too=True))


def read_config(config: Mapping[str, Any], family: BertFamily) -> BertConfig | None:
    """Return the content of a config.json; None if it has anything that this code does not know."""
    known_keys = {*SUPPORTED_VALUES, *WITHOUT_EFFECT, *family.sizes.values()}
    if set(config) - known_keys:
        return None
    if any(config[n] not in values for n, values in SUPPORTED_VALUES.items() if n in config):
        return None
    sizes: dict[str, Any] = {name: config.get(key) for name, key in family.sizes.items()}
    sizes["vocab_size"] = config.get("vocab_size")
    sizes["max_position_embeddings"] = config.get("max_position_embeddings")
    sizes["type_vocab_size"] = config.get("type_vocab_size", 0)
    pad, labels = config.get("pad_token_id", 0), config.get("id2label")
    eps = config.get("layer_norm_eps", 1e-12)
    if sizes.pop("activation") != "gelu" or type(eps) is not float:
        return None
    if any(type(size) is not int for size in sizes.values()) or type(pad) not in (int, type(None)):
        return None
    if min(sizes["layers"], sizes["heads"]) < 1 or sizes["hidden"] % sizes["heads"]:
        return None
    if not isinstance(labels, dict) or not all(_LABEL_INDEX.fullmatch(str(i)) for i in labels):
        return None
    return BertConfig(
        **sizes,
        layer_norm_eps=eps,
        id2label={int(i): label for i, label in labels.items()},
        pad_token_id=pad,
        problem_type=config.get("problem_type"),
    )


def _weight_shapes(config: BertConfig, family: BertFamily) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight by its name in a checkpoint."""
    hidden, width = config.hidden, config.width
    linear = {
        family.pooler[0]: (hidden, hidden),
        "classifier": (config.num_labels, hidden),
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
