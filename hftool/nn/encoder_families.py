"""The families of text classifiers that `hftool.nn.encoder` computes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Family:
    """The names that an architecture gives to its parts.

    `sizes` has the keys of its config.json, `embeddings` the prefix of the embedding tables,
    `layer` the prefix of layer `{}`, `attention` and `parts` what follows it. `pooler` is the layer
    between the last encoder layer and the `classifier`, with its activation. `unused` matches
    weights that checkpoints have although the classifier does not use them. Positions are counted
    from the id of the padding token if `counts_from_padding`, and `pad` is that id where a
    config.json has none.
    """

    sizes: Mapping[str, str]
    embeddings: str
    layer: str
    attention: tuple[str, str, str]
    parts: Mapping[str, str]
    pooler: tuple[str, Any]
    classifier: str = "classifier"
    unused: str = r"\.position_ids$"
    counts_from_padding: bool = False
    pad: int = 0


_BERT = Family(
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
)
_ROBERTA = replace(
    _BERT,
    embeddings="roberta.embeddings",
    layer="roberta.encoder.layer.{}.",
    pooler=("classifier.dense", torch.tanh),
    classifier="classifier.out_proj",
    unused=r"\.position_ids$|^roberta\.pooler\.",
    counts_from_padding=True,
    pad=1,
)
FAMILIES = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "distilbert": Family(
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
