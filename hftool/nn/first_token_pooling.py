"""What a classifier that looks at the first token alone need not compute."""

from typing import Any

from hftool.nn.architectures import FIRST_TOKEN_CLASSIFIERS


def compute_first_token_only(model: Any) -> None:
    """Let the last layer of such a model go on with the first token behind its attention: its
    feed-forward part, two thirds of a layer, would be thrown away for all others."""
    if type(model).__name__ in FIRST_TOKEN_CLASSIFIERS:
        for last in model.base_model.encoder.layer[-1:]:  # a config may say 0 layers
            last.attention.register_forward_hook(_first_token)


def _first_token(_module: Any, _inputs: Any, outputs: Any) -> Any:
    """Of the attention's outputs [sequences, tokens, hidden] the first token's."""
    return outputs[0][:, :1], *outputs[1:]
