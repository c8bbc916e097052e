"""Load a model as one of transformers' classes: the only calls of `from_pretrained`."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hftool.errors import HftoolError
from hftool.models.checkpoints import (
    report_unused,
    require_known_quantization,
    weights_problem,
)
from hftool.models.gguf_weights import loading_arguments
from hftool.models.model_class import (
    AutoClass,
    ModelClass,
    text_class,
    uses_all_text,
    without_towers,
)
from hftool.models.model_errors import loading_errors
from hftool.models.validation import SLACK, read_tensor_shapes, tensor_sizes
from hftool.nn.architectures import CLASSIFIER_SUFFIX
from hftool.nn.first_token_pooling import compute_first_token_only
from hftool.nn.quantization import quantize
from hftool.nn.quantized_linear import Bits

log = logging.getLogger("hftool")


def from_pretrained(
    auto: AutoClass,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    bits: Bits | None,
    trusted: bool,
) -> Any:
    """Load a model of one of transformers' classes, in evaluation mode."""
    import transformers

    require_known_quantization(folder)
    with _quiet_transformers(), loading_errors(folder):
        for chosen in _model_classes(auto, folder, trusted):
            auto_class = getattr(transformers, chosen.auto)
            if not trusted:
                _require_size(auto_class, chosen.config, folder)
            known, source = loading_arguments(auto_class, folder, chosen.config, dtype)
            model, info = known.from_pretrained(
                **source,
                key_mapping=chosen.key_mapping or None,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=None if trusted else True,
                trust_remote_code=trusted,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported below
            )
            if not chosen.for_text or uses_all_text(info):
                break
        model = model.to(device)
    if bits is not None:
        quantize(model, bits, inputs_too=auto.endswith(CLASSIFIER_SUFFIX))
    if problem := weights_problem(info):
        raise HftoolError(f"{folder} {problem}")
    if not chosen.for_text:  # else the weights for images and sounds are unused
        report_unused(folder, info["unexpected_keys"])
    compute_first_token_only(model)
    return model.eval()


def _model_classes(auto: AutoClass, folder: Path, trusted: bool) -> Iterator[ModelClass]:
    """Yield the classes that a model can be loaded with: that for text alone first."""
    if trusted:
        yield ModelClass(auto, None)
        return
    from transformers import AutoConfig

    def read() -> Any:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    if auto in ("AutoModelForCausalLM", "AutoModelForMultimodalLM"):
        names = [name for f in folder.glob("*.safetensors") for name in read_tensor_shapes(f)]
        if text := text_class(read(), names):
            yield text
        small = without_towers(read())
        if small is not None and _can_build(auto, small):
            yield ModelClass(auto, small, for_text=True)
    yield ModelClass(auto, read())


def _can_build(auto: AutoClass, config: Any) -> bool:
    """Return whether a model of a configuration can be built, without memory for its weights."""
    import transformers

    try:
        with torch.device("meta"):
            getattr(transformers, auto).from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever the class does without layers
        log.debug("its parts for images or sounds are loaded too: %s", error)
        return False
    return True


def _require_size(auto: Any, config: Any, folder: Path) -> None:
    """Raise an error if a config describes a model far larger than its weights, by any of its
    values: the model is first built without memory, which takes about 0.03 s."""
    with torch.device("meta"):
        model = auto.from_config(config, trust_remote_code=False)
        built = sum(weight.numel() for weight in model.parameters())
    stored = sum(tensor_sizes(folder))
    if built > SLACK * stored:
        raise HftoolError(
            f"{folder}/config.json describes a model of {built:,} numbers, but the weights have"
            f" {stored:,}"
        )


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Show transformers' advice only with -v, and never its progress bars."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if not log.isEnabledFor(logging.DEBUG):
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    yield
