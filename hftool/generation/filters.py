"""Build the filters for a text: those of hftool's own options, and those that only the model's
generation_config asks for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hftool.errors import HftoolError, is_little_memory, raised_by_us
from hftool.generation.drawing import are_finite
from hftool.generation.sampling import Filter, SamplingSettings, own_filters
from hftool.models.language_model import LanguageModel

FIELDS = {"no_repeat_ngram": "no_repeat_ngram_size"}  # of filters with a name of their own


def build_filters(
    settings: SamplingSettings,
    language_model: LanguageModel,
    prompt_ids: Sequence[int],
    limit: int | None = None,
) -> list[Filter]:
    """Return the filters that the settings turn on, in transformers' order.

    Args:
        prompt_ids: the tokens before the generated ones.
        limit: the number of tokens to generate; None if another one always follows.

    Raises:
        HftoolError: a value of the generation_config is one that transformers does not accept.
    """
    own = own_filters(settings)
    if not settings.further:
        return own
    from hftool.generation.processors import named_processors  # imports much of transformers

    fields = {FIELDS.get(item.name, item.name) for item in own}
    with config_errors():
        named = named_processors(
            language_model,
            {name: getattr(settings, name) for name in fields} | dict(settings.further),
            prompt_ids,
            limit,
            sampled=not settings.greedy,
        )
    names = {field: name for name, field in FIELDS.items()}
    return [_ConfigFilter(names.get(name, name), processor) for name, processor in named]


@dataclass(frozen=True)
class _ConfigFilter(Filter):
    """A filter whose values come from a model's generation_config, so that they may fit nothing."""

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        with config_errors():
            scores = super().__call__(ids, logits)
        if not bool(are_finite(scores).all()):
            does = "leaves no token" if bool(torch.isneginf(scores).all()) else "is not finite"
            raise HftoolError(f"{self.name} of the model's generation_config {does}")
        return scores


@contextmanager
def config_errors() -> Iterator[None]:
    """Report what transformers raises about a value of a model's generation_config.

    Raises:
        HftoolError: with the cause.
    """
    try:
        yield
    except HftoolError:
        raise
    except Exception as error:  # any kind, by the type of the value
        if is_little_memory(error) or raised_by_us(error):
            raise
        raise HftoolError(
            "the model's generation_config has a value that no sampling filter accepts:"
            f" {' '.join(str(error).split())[:300]}",
            "correct its generation_config.json, or override it with an option",
        ) from error
