"""Load models into memory, with their tokenizers and settings."""

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.models.checkpoints import report_two_sets
from hftool.models.classifier import Classifier, activation_of, labels_of
from hftool.models.device import choose_device, choose_dtype
from hftool.models.generation_config import read_generation_config, recommended_settings
from hftool.models.language_model import LanguageModel, first_position
from hftool.models.local_files import architectures_of, ensure_local, read_tokenizer
from hftool.models.model_class import AutoClass, find_auto_class, is_for_text
from hftool.models.model_errors import loading_errors
from hftool.models.pretrained import from_pretrained
from hftool.models.quantized_copies import quantized_copy
from hftool.models.references import ModelSource, resolve_reference
from hftool.models.resident import cached
from hftool.models.validation import require_plausible, tensor_sizes
from hftool.nn.architectures import (
    CLASSIFIER_SUFFIX,
    DECODER_MODEL_TYPES,
    GENERATOR_SUFFIXES,
    OTHER_MODEL_TYPES,
    computed_model_type,
)
from hftool.nn.decoder import Decoder, read_decoder
from hftool.nn.encoder import read_encoder
from hftool.nn.kernels import kernels
from hftool.nn.threads import limit_to_quota
from hftool.options.model import (
    DEFAULT_CLASSIFIER,
    ClassifierOptions,
    ExactLoadOptions,
    LoadOptions,
)
from hftool.terminal import clear_status
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

MAX_EXACT_BYTES = 4 << 30  # of float32 weights, for commands whose results are numbers
FLOAT32_BYTES = 4
NO_LIMIT = 1e9  # tokens; transformers writes 1e30 for a tokenizer without a limit


def load_language_model(
    options: LoadOptions, *, masked: bool = False, fast: bool = True
) -> LanguageModel:
    """Load a language model that continues texts, with `masked` also one that fills in masks.

    Without `fast` it is loaded as transformers' class, whose layers can be looked into.

    Raises:
        HftoolError: the model is unknown, can't be downloaded, is not a causal language model, or
            its files are broken.
    """
    source = resolve_reference(options.model, options.revision)
    folder = ensure_local(source, "model", options, options.model)
    language_model = _language_model(source, folder, options, fast=fast)
    if language_model.is_masked and not masked:
        raise HftoolError(
            f"{options.model} is a masked language model, which can't continue a text",
            'it fills in masks: `hftool topk "Paris is the [MASK] of France."`',
        )
    return language_model


def load_classifier(options: ClassifierOptions) -> Classifier:
    """Load a sequence-classification model.

    Raises:
        HftoolError: the model is unknown, can't be downloaded, is not a classifier, or its files
            are broken.
    """
    name = options.model or DEFAULT_CLASSIFIER
    source = resolve_reference(name, options.revision)
    folder = ensure_local(source, "model", options, name)
    return _classifier(source, folder, name, options)


def load_classifier_or_language_model(
    options: ClassifierOptions, default: str
) -> Classifier | LanguageModel:
    """Load a model of either kind, by default the one named `default`.

    Raises: as `load_classifier` and `load_language_model`.
    """
    name = options.model or default
    source = resolve_reference(name, options.revision)
    folder = ensure_local(source, "model", options, name)
    if any(a.endswith(CLASSIFIER_SUFFIX) for a in architectures_of(folder)):
        return _classifier(source, folder, name, options)
    return _language_model(source, folder, ExactLoadOptions(**{**asdict(options), "model": name}))


def _language_model(
    source: ModelSource,
    folder: Path,
    options: LoadOptions,
    *,
    fast: bool = True,
) -> LanguageModel:
    name = options.model
    auto = auto_class(folder, name, options.trust_remote_code)
    generation_config = {**read_generation_config(folder), **recommended_settings(source)}
    model = _load(auto, folder, options, fast=fast)
    tokenizer = _tokenizer(source, folder, options, name)
    clear_status()
    return LanguageModel(
        name,
        model,
        tokenizer,
        generation_config,
        pads=True if isinstance(model, Decoder) else None,
        is_masked=auto == "AutoModelForMaskedLM",
        target_lang=options.target_lang,
    )


def _classifier(
    source: ModelSource, folder: Path, name: str, options: ClassifierOptions
) -> Classifier:
    _require(folder, name, (CLASSIFIER_SUFFIX,), "a text classifier")
    model = _load("AutoModelForSequenceClassification", folder, options, fast=True)
    tokenizer = _tokenizer(source, folder, options, name)
    clear_status()
    most = getattr(model.config, "max_position_embeddings", None)
    most = most and most - first_position(model)
    limits = (most, tokenizer.config.get("model_max_length"))
    lengths = (int(n) for n in limits if isinstance(n, int | float) and 1 <= n < NO_LIMIT)
    return Classifier(
        name,
        model,
        tokenizer,
        labels_of(model.config, folder),
        activation_of(model.config),
        min(lengths, default=None),
    )


def _tokenizer(
    source: ModelSource, folder: Path, options: LoadOptions | ClassifierOptions, name: str
) -> Tokenizer:
    if not (folder / "tokenizer.json").is_file():  # it has older files, which are converted
        folder = ensure_local(source, "tokenizer", options, name)
    return read_tokenizer(folder, name)


def auto_class(folder: Path, name: str, trusted: bool) -> AutoClass:
    """Return the class that a language model is loaded with; the own code of a repository is
    always that of a causal one.

    Raises:
        HftoolError: the model in the folder is not a language model.
    """
    config = read_json(folder / "config.json")
    if trusted or computed_model_type(config, DECODER_MODEL_TYPES):
        return "AutoModelForCausalLM"
    model_type = str(config.get("model_type"))
    if other := OTHER_MODEL_TYPES.get(model_type):
        raise HftoolError(f"{name} is a {model_type}, which {other} and does not continue a text")
    if "lsh" in (config.get("attn_layers") or ()) and config.get("hash_seed") is None:  # Reformer
        log.warning(
            "the attention of %s hashes tokens at random: its probabilities differ each time", name
        )
    auto = find_auto_class(config, next(iter(architectures_of(folder)), None))
    if auto is None:
        _require(folder, name, GENERATOR_SUFFIXES, "a language model that generates text")
    return auto or "AutoModelForCausalLM"


def _require(folder: Path, name: str, suffixes: tuple[str, ...], what: str) -> None:
    """Raise an error if config.json names architectures, but none with one of these suffixes."""
    architectures = architectures_of(folder)
    if architectures and not any(a.endswith(suffixes) for a in architectures):
        if any(a.endswith(CLASSIFIER_SUFFIX) for a in architectures):
            hint = "`sentiment` takes classifiers"
        elif any(a.endswith(GENERATOR_SUFFIXES) for a in architectures):
            hint = "a language model needs the labels: --labels positive,negative"
        else:
            hint = "`hftool models list` shows models for each task"
        raise HftoolError(f"{name} is not {what} (it is a {architectures[0]})", hint)


def _load(
    auto: AutoClass,
    folder: Path,
    options: LoadOptions | ClassifierOptions,
    *,
    fast: bool = False,
) -> Any:
    """Load a model; with `fast` as one of `hftool.nn`'s own where that can compute it."""
    device = choose_device(options.device)
    if device.type == "cpu":
        limit_to_quota()
    is_classifier = isinstance(options, ClassifierOptions)
    exact = options.dtype == "auto" and device.type == "cpu" and _is_exact(options, folder)
    dtype = choose_dtype("float32" if exact else options.dtype, device)
    bits = None if options.quantize == "none" else options.quantize
    trusted = options.trust_remote_code
    if fast and (device.type != "cpu" or trusted):
        cause = "--trust-remote-code" if trusted else f"the device {device.type}"
        log.debug("%s: transformers computes it, because of %s", folder, cause)
    fast = fast and device.type == "cpu" and not trusted

    def read() -> Any:
        log.debug("started and imported in %.2f s", _process_age())
        if not trusted:
            require_plausible(folder, read_json(folder / "config.json"))
        began = time.perf_counter()
        report_two_sets(folder)
        model = None
        if fast:
            copy = quantized_copy(folder, bits, dtype) if bits is not None else None
            kept = None if copy is None else copy.tensors
            with loading_errors(folder):
                model = (read_encoder if is_classifier else read_decoder)(folder, dtype, bits, kept)
            if model is not None and copy is not None:
                copy.keep()
        computes = "hftool's own code"
        if bits is not None and not is_classifier and kernels() is not None:
            computes = f"{computes} with hftool_kernels"
        if model is None:
            model = from_pretrained(auto, folder, dtype, device, bits, trusted)
            computes = f"transformers' {type(model).__name__}"
        seconds = time.perf_counter() - began
        log.debug(
            "loaded %s: %s on %s in %.2f s; %s computes it",
            *(folder, dtype, device, seconds, computes),
        )
        return model

    return cached(read, folder, auto, device, dtype, bits, trusted, fast)


def _is_exact(options: LoadOptions | ClassifierOptions, folder: Path) -> bool:
    """Return whether a model is computed in float32 on a CPU unless another precision is named.

    Scores are compared and stored; in float32 they are the same on every CPU, and all the digits
    that are shown mean something.
    """
    if options.quantize != "none":
        return False
    if not isinstance(options, ExactLoadOptions):
        return isinstance(options, ClassifierOptions)
    most: int = min(MAX_EXACT_BYTES, psutil.virtual_memory().available // 2)
    exact = FLOAT32_BYTES * sum(tensor_sizes(folder, is_for_text)) <= most
    log.debug(
        "%s: float32 weights %s %d MB", folder, "take at most" if exact else "exceed", most >> 20
    )
    return exact


def _process_age() -> float:
    """Return the seconds since this process began."""
    created: float = psutil.Process().create_time()
    if hasattr(time, "CLOCK_BOOTTIME"):  # on Linux, psutil knows the boot time only to the second
        booted: float = psutil.boot_time()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - (created - booted)
    return time.time() - created
