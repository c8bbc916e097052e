"""The logit lens: the tokens that each layer of a model would predict (nostalgebraist 2020).

The model's own code computes them: all that follows its last layer, such as the final norm, the
output head and caps on logits, gets the output of another layer instead. So this works for each
model whose layers pass on one vector per token, and nothing is assumed about what follows them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from hftool.errors import HftoolError, is_little_memory
from hftool.generation.drawing import check_finite
from hftool.generation.mask_filling import mask_positions
from hftool.generation.next_token import NextTokenQuery, end_of, require_no_position, single_tokens
from hftool.generation.prefix_cache import require_context
from hftool.generation.ranking import entropy_bits, rank_of
from hftool.generation.records import OPTIONAL
from hftool.models.language_model import LanguageModel
from hftool.nn.hidden_states import layer_lists, recorded_states, replaced_states

MOST_ERROR = 1e-3  # of the last layer's logits, relative to the model's own, in float32
MOST_ERROR_HALF = 0.05


@dataclass(frozen=True, slots=True)
class LayerCandidate:
    """One of the most probable tokens after a layer."""

    id: int
    token: str
    prob: float


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer would predict for the token after `position`: the output of the layer goes to
    the model's final norm and output head. Layer 0 is the embedding of the text's last token.

    `answer` is the token that the model predicts, or a given one, with its probability and rank
    after this layer. `entropy`, in bits, is that of the whole distribution, and `candidates` are
    its most probable tokens. For a masked model it is the token at `position`, where the text has
    its `mask` (0 is the first). `model` is given when there are several models, `index` when there
    are several texts.
    """

    layer: int
    position: int
    answer_id: int
    answer: str
    answer_prob: float
    answer_rank: int
    entropy: float
    candidates: tuple[LayerCandidate, ...]
    mask: int | None = field(default=None, metadata=OPTIONAL)
    model: str | None = field(default=None, metadata=OPTIONAL)
    index: int | None = field(default=None, metadata=OPTIONAL)


def layers_of_prompt(
    language_model: LanguageModel, ids: Sequence[int], query: NextTokenQuery
) -> Iterator[Layer]:
    """Yield each layer's prediction for the token after `ids`, or for each mask in them; the last
    one is the model's own.

    Raises:
        HftoolError: the prompt does not fit the context, or the layers do not pass on one vector
            per token, so that there is no right answer.
        UsageError: a target is not one token, or a masked model's text has no mask.
    """
    wanted = single_tokens(language_model, query, "with --layers a target")
    if not language_model.is_masked:
        ids = ids[: end_of(query.position, len(ids))]
    ids, source = language_model.split_prompt(ids)
    language_model = language_model.reading(source)
    require_context(language_model, len(ids))
    positions = [len(ids) - 1]
    if language_model.is_masked:
        require_no_position(language_model, query)
        positions = mask_positions(language_model, ids)
    for number, logits in enumerate(_logits_after_layers(language_model, ids, positions)):
        mask = number if language_model.is_masked else None
        for answer_id in wanted or [int(logits[-1].argmax())]:
            for layer, row in enumerate(logits):
                found = _layer(language_model, row, answer_id, query.k)
                yield replace(found, layer=layer, position=positions[number], mask=mask)


def _layer(language_model: LanguageModel, logits: torch.Tensor, answer_id: int, k: int) -> Layer:
    """Return the record of logits [vocabulary], without its place."""
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    ordered, order = logprobs.exp().sort(descending=True, stable=True)
    name = language_model.tokenizer.token_text
    best = zip(order[:k].tolist(), ordered[:k].tolist(), strict=True)
    return Layer(
        layer=0,
        position=0,
        answer_id=answer_id,
        answer=name(answer_id),
        answer_prob=float(logprobs[answer_id].exp()),
        answer_rank=rank_of(logprobs, answer_id),
        entropy=entropy_bits(logprobs),
        candidates=tuple(LayerCandidate(i, name(i), prob) for i, prob in best),
    )


@torch.inference_mode()
def _logits_after_layers(
    language_model: LanguageModel, ids: Sequence[int], positions: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Yield for each position the logits after the embedding and after each layer: float32
    [layers + 1, vocabulary]. The last ones are the model's own.

    Raises:
        HftoolError: as `layers_of_prompt`.
    """
    model = language_model.model
    encoder = model.get_encoder() if language_model.is_encoder_decoder else None
    inputs = language_model.encode([language_model.source])
    tokens = torch.tensor([list(ids)], device=model.device)
    with recorded_states([*layer_lists(model, encoder)], len(ids), positions) as states:
        own = _logits(language_model, tokens, inputs)
    own = own[0, positions if language_model.is_masked else [-1]]
    check_finite(own, model.dtype)
    usable = {layers: s for layers, s in states.items() if s and all(at.numel() for at in s)}
    layers = max(usable, key=lambda layers: len(usable[layers]), default=None)
    if layers is None:
        raise _no_layers(language_model)
    for number, expected in enumerate(own):
        at_position = torch.stack([at[number] for at in usable[layers]])
        rows = len(at_position)
        one = tokens[:, positions[number], None].expand(rows, 1)
        try:
            with replaced_states(layers, rows - 1, at_position):
                logits = _logits(language_model, one, _repeated(inputs, rows))[:, -1].cpu()
        except HftoolError as error:
            if is_little_memory(error):
                raise
            raise _no_layers(language_model) from error
        if not _same(logits[-1], expected.cpu(), exact=model.dtype.itemsize == 4):
            raise _no_layers(language_model)
        logits[-1] = expected
        yield logits


def _logits(
    language_model: LanguageModel, tokens: torch.Tensor, inputs: dict[str, Any]
) -> torch.Tensor:
    """Return logits [sequences, tokens, vocabulary], after the last token only where that is the
    one to predict after."""
    if language_model.is_masked:
        return language_model.forward(tokens, attention_mask=torch.ones_like(tokens))
    return language_model.forward(tokens, last=1, **inputs)


def _repeated(inputs: dict[str, Any], rows: int) -> dict[str, Any]:
    """Return the arguments that give a decoder its source, for several sequences."""
    if not inputs:
        return {}
    encoded = inputs["encoder_outputs"]
    states = encoded.last_hidden_state.expand(rows, -1, -1)
    return {
        "encoder_outputs": type(encoded)(last_hidden_state=states),
        "attention_mask": inputs["attention_mask"].expand(rows, -1),
    }


def _same(logits: torch.Tensor, expected: torch.Tensor, *, exact: bool) -> bool:
    """Return whether logits [vocabulary] are the same, but for rounding and a constant."""
    finite = expected.isfinite() & logits.isfinite()
    logits, expected = logits[finite], expected[finite]
    error = (logits - expected).norm() / (expected - expected.mean()).norm()
    return bool(error < (MOST_ERROR if exact else MOST_ERROR_HALF))


def _no_layers(language_model: LanguageModel) -> HftoolError:
    kind = getattr(language_model.model.config, "model_type", "of this kind")
    return HftoolError(
        f"{language_model.name} has no layers that --layers can read: a {kind} model does not pass"
        " on one vector per token from each layer to the next"
    )
