"""Skip what a classifier that reads only the first token need not compute."""

from typing import Any

from hftool.nn.architectures import FIRST_TOKEN_CLASSIFIERS


def compute_first_token_only(model: Any) -> None:
    """Let the last layer of such a classifier continue with only the first token after attention.

    The layer's feed-forward part, two thirds of its work, would be discarded for all other tokens.
    Any other model stays as it is.
    """
    if type(model).__name__ in FIRST_TOKEN_CLASSIFIERS:
        for last in model.base_model.encoder.layer[-1:]:  # a config may have 0 layers
            last.attention.register_forward_hook(_first_token)


def _first_token(_module: Any, _inputs: Any, outputs: Any) -> Any:
    """Reduce the attention's output [sequences, tokens, hidden] to the first token's."""
    return outputs[0][:, :1], *outputs[1:]
