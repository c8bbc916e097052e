"""Replace the masks of a text: the tokens that a masked language model expects there."""

from collections.abc import Iterator, Sequence

import torch

from hftool.errors import HftoolError, UsageError
from hftool.generation.drawing import check_finite
from hftool.models.language_model import LanguageModel
from hftool.tokenization.tokenizer import Tokenizer

# The mask as most models call it. It is taken for a model's own mask token, and where the files
# name none, as those of the first BERT and RoBERTa, it is that token.
COMMON_MASKS = ("[MASK]", "<mask>")


def mask_token(tokenizer: Tokenizer) -> str:
    """Return the tokenizer's mask token.

    Raises:
        HftoolError: it has none.
    """
    own = tokenizer.special_tokens.get("mask_token")
    known = (mask for mask in COMMON_MASKS if tokenizer.backend.token_to_id(mask) is not None)
    own = own or next(known, None)
    if own is None:
        raise HftoolError("the tokenizer names no mask token", "see its tokenizer_config.json")
    return own


def mask_id(tokenizer: Tokenizer) -> int:
    """Return the id of the mask token. Raises: as `mask_token`."""
    found = tokenizer.backend.token_to_id(mask_token(tokenizer))
    if found is None:
        raise HftoolError("the tokenizer's mask token is not in its vocabulary")
    return found


def with_own_mask(tokenizer: Tokenizer, text: str) -> str:
    """Return a text with the tokenizer's mask token in place of other models' mask tokens. Raises:
    as `mask_token`."""
    own = mask_token(tokenizer)
    if own not in text:
        for mask in COMMON_MASKS:
            text = text.replace(mask, own)
    return text


@torch.inference_mode()
def mask_logits(
    language_model: LanguageModel, ids: Sequence[int]
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the position of each mask in `ids`, and the logits of the tokens there [vocabulary].

    Raises:
        UsageError: there is no mask.
        HftoolError: the text is longer than the context, or as `LanguageModel.forward`.
    """
    positions = mask_positions(language_model, ids)
    tokens = torch.tensor([list(ids)], device=language_model.model.device)
    logits = language_model.forward(tokens, attention_mask=torch.ones_like(tokens))[0]
    check_finite(logits[positions], language_model.model.dtype)
    for position in positions:
        yield position, logits[position]


def mask_positions(language_model: LanguageModel, ids: Sequence[int]) -> list[int]:
    """Return the positions of the masks in `ids`.

    Raises:
        UsageError: there is none.
    """
    own = mask_id(language_model.tokenizer)
    positions = [position for position, token_id in enumerate(ids) if token_id == own]
    if not positions:
        mask = mask_token(language_model.tokenizer)
        raise UsageError(
            f"{language_model.name} is a masked model, and the text has no {mask}",
            f"put {mask} in the place of the token to predict",
        )
    return positions
