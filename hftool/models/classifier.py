"""A text classifier in memory: its labels, and how its logits become scores."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hftool.errors import HftoolError
from hftool.models.language_model import embedding_rows
from hftool.tokenization.tokenizer import Tokenizer

Activation = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True)
class Classifier:
    """A sequence-classification model with its tokenizer.

    `labels` are in the order of the model's logits; `activation` turns these into scores.
    `max_length` is the limit of a sequence in tokens, None if there is none.
    """

    name: str
    model: Any
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    activation: Activation
    max_length: int | None

    @cached_property
    def embedding_rows(self) -> int:
        """The number of token ids that the model can read."""
        return embedding_rows(self.model)

    @cached_property
    def takes_type_ids(self) -> bool:
        """Whether the model is given the type ids of tokens: as in transformers, if its tokenizer
        names them among the inputs. A model that has only one type has no use for them."""
        if getattr(self.model.config, "type_vocab_size", None) in (0, 1):
            return False
        if "token_type_ids" not in inspect.signature(self.model.forward).parameters:
            return False
        names = self.tokenizer.config.get("model_input_names")
        return "token_type_ids" in (names or _input_names_of_class(self))


def _input_names_of_class(classifier: Classifier) -> Sequence[str]:
    """Return the names of the inputs that transformers' class of a tokenizer makes."""
    from transformers.models.auto import tokenization_auto as auto

    by_type = auto.TOKENIZER_MAPPING_NAMES.get(getattr(classifier.model.config, "model_type", ""))
    name = classifier.tokenizer.config.get("tokenizer_class") or by_type or ""
    found = auto.tokenizer_class_from_name(str(name).removesuffix("Fast"))
    found = found or auto.tokenizer_class_from_name(str(name))
    names: Sequence[str] = getattr(found, "model_input_names", ())
    return names


def labels_of(config: Any, folder: Path) -> tuple[str, ...]:
    """Return the labels by the index of their logit. A label without a name gets transformers' name
    for it, and labels with the same name get their index appended.

    Raises:
        HftoolError: id2label numbers the labels otherwise than from 0.
    """
    given = config.id2label
    if sorted(given) != [*range(config.num_labels)]:
        numbers = ", ".join(map(str, sorted(given)[:10]))
        raise HftoolError(
            f"cannot read {folder / 'config.json'}: its id2label has the numbers {numbers}, but the"
            f" model's {config.num_labels} labels are 0 to {config.num_labels - 1}",
            "number the labels from 0, in the order of the model's outputs",
        )
    names = ["" if given[i] is None else str(given[i]) for i in range(config.num_labels)]
    names = [name if name.strip() else f"LABEL_{i}" for i, name in enumerate(names)]
    labels: list[str] = []
    for i, name in enumerate(names):
        label = name if names.count(name) == 1 else f"{name}_{i}"
        while label in labels or (label != name and label in names):
            label = f"{label}_{i}"
        labels.append(label)
    return tuple(labels)


def activation_of(config: Any) -> Activation:
    """Return the activation that transformers' TextClassificationPipeline chooses."""
    if config.problem_type == "regression":
        return "none"
    multi_label = config.problem_type == "multi_label_classification" or config.num_labels == 1
    return "sigmoid" if multi_label else "softmax"
