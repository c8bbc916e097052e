"""Make what a page with sliders needs of the logits for the next token."""

import math

import torch

from hftool.generation.records import SLIDER_TEMPERATURES, Distribution
from hftool.generation.sampling import SamplingSettings
from hftool.models.language_model import LanguageModel

BEST = 300  # tokens that are listed


def distribution(
    language_model: LanguageModel,
    logits: torch.Tensor,
    prompt: str,
    position: int,
    settings: SamplingSettings | None,
) -> Distribution:
    """Return the distribution that logits [vocabulary] stand for.

    Args:
        prompt: the text to show.
        settings: what the sliders show at first; None for no filter.
    """
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    ordered, order = logprobs.sort(descending=True, stable=True)
    best = [int(token_id) for token_id in order[:BEST]]
    rest = [float(torch.logsumexp(ordered[BEST:] / t, 0)) for t in SLIDER_TEMPERATURES]
    return Distribution(
        prompt=prompt,
        position=position,
        ids=tuple(best),
        tokens=tuple(map(language_model.tokenizer.token_text, best)),
        logprobs=tuple(float(logprob) for logprob in ordered[:BEST]),
        others=max(0, len(order) - BEST),
        rest=tuple(rest),
        entropy=float(torch.special.entr(logprobs.exp()).sum()) / math.log(2),
        settings=(1.0, 0, 1.0, 0.0) if settings is None else _shown(settings),
    )


def _shown(settings: SamplingSettings) -> tuple[float, int, float, float]:
    temperature = 0.0 if settings.greedy else settings.temperature
    return temperature, settings.top_k, settings.top_p, settings.min_p
