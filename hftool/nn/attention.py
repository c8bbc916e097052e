"""Attention over cached keys, its masks, and the rotation of queries and keys."""

import torch
import torch.nn.functional as F

from hftool.nn.rotary import Rope

Rotation = tuple[torch.Tensor, torch.Tensor]  # cosines and sines [sequences, 1, tokens, rotated]


def rotation_of(rope: Rope, position_ids: torch.Tensor, dtype: torch.dtype) -> Rotation:
    """Return the rotation of tokens at some positions [sequences, tokens]."""
    angles = rope.angles
    if rope.beyond is not None and int(position_ids.max()) >= rope.switch:
        angles = rope.beyond
    turned = position_ids[..., None].float() * angles
    cos, sin = turned.cos(), turned.sin()
    if rope.scale != 1.0:
        cos, sin = cos * rope.scale, sin * rope.scale
    # The rotation pairs each number of a head with the one half a head away. With the sign in
    # the sines, no layer has to negate one of the halves.
    return (
        torch.cat((cos, cos), dim=-1)[:, None].to(dtype),
        torch.cat((-sin, sin), dim=-1)[:, None].to(dtype),
    )


def rotated_heads(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the first numbers of each head; in most models that is all of them."""
    size = cos.shape[-1]
    turned = heads[..., :size]
    turned = (turned * cos).add_(turned.roll(size // 2, -1).mul_(sin))
    return turned if size == heads.shape[-1] else torch.cat((turned, heads[..., size:]), dim=-1)


def causal_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return the attention of the last tokens [sequences, heads, tokens, head_dim] over all tokens
    up to themselves.

    It makes nothing of the size tokens times tokens, and copies no keys for heads that share them.
    """
    sequences, heads, tokens, size = query.shape
    kv_heads, end = keys.shape[1:3]
    query = query.reshape(sequences * kv_heads, -1, tokens, size)
    keys, values = (
        shared.flatten(0, 1)[:, None].expand(-1, heads // kv_heads, -1, -1)
        for shared in (keys, values)
    )
    if tokens in (1, end):
        output = F.scaled_dot_product_attention(
            query, keys, values, is_causal=tokens > 1, scale=scale
        )
    else:
        # With the tokens in reverse order, each row of the causal mask is the row before shifted
        # by one. So all rows are views of one vector: zeros, then minus infinity.
        row = query.new_zeros(end + tokens)
        row[end:] = -torch.inf
        mask = row.as_strided((tokens, end), (1, 1))
        output = F.scaled_dot_product_attention(query.flip(2), keys, values, mask, scale=scale)
        output = output.flip(2)
    return output.reshape(sequences, heads, tokens, size)


def mask_for(
    filled: torch.Tensor | None, tokens: int, past: int, window: int | None
) -> torch.Tensor | None:
    """Return which tokens each new one attends to: bool [sequences or 1, 1, tokens, all tokens], or
    of all tokens the last ones, as many as `KeyValueCache.append` returns.

    None if there is no padding and nothing out of the window, so that each attends to all tokens
    up to itself.
    """
    padded = filled is not None and not bool(filled.all())
    seen = past + tokens if window is None else min(past, window - 1) + tokens
    if not padded and (window is None or seen < window):
        return None
    query_positions = torch.arange(past, past + tokens)[:, None]
    key_positions = torch.arange(past + tokens - seen, past + tokens)
    mask: torch.Tensor = key_positions <= query_positions
    if window is not None:
        mask &= key_positions > query_positions - window
    if padded and filled is not None:
        mask = mask & filled[:, None, -seen:].bool()
    else:
        mask = mask[None]
    # Padding attends to itself: with nothing to attend to, its states would become NaN.
    mask = mask | (key_positions == query_positions)
    return mask[:, None]
