"""Models into memory: the only calls of `from_pretrained` that a command makes."""

import contextlib
import inspect
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from safetensors import SafetensorError

from hftool.errors import HftoolError, is_little_memory
from hftool.json_files import read_json
from hftool.models.conversion import weights_problem
from hftool.models.device import choose_device, choose_dtype
from hftool.models.local_files import architectures_of, ensure_local, load_tokenizer
from hftool.models.resident import cached
from hftool.models.validation import SLACK, require_plausible, sizes_of_tensors
from hftool.nn.architectures import CLASSIFIER_SUFFIX, CONTEXT_LENGTH_KEYS, GENERATOR_SUFFIXES
from hftool.nn.bert import read_bert
from hftool.nn.cache import Cache, can_pad, new_cache
from hftool.nn.first_token_pooling import compute_first_token_only
from hftool.nn.llama import read_llama
from hftool.nn.quantization import Bits, quantize
from hftool.options.model import DEFAULT_CLASSIFIER, ClassifierOptions, LoadOptions
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

Activation = Literal["softmax", "sigmoid", "none"]
NO_LIMIT = 1e9  # tokens; transformers writes 1e30 for it


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer. `model` stands in evaluation mode."""

    name: str
    model: Any
    tokenizer: Tokenizer
    generation_config: dict[str, Any]
    load_transformers_model: Callable[[], Any]

    @cached_property
    def transformers_model(self) -> Any:
        """The model as transformers' class, which has a method `generate`."""
        return self.model if hasattr(self.model, "generate") else self.load_transformers_model()

    @property
    def context_length(self) -> int | None:
        """The most tokens the model can see, None where its config names no limit."""
        config = self.model.config.get_text_config()
        lengths = (getattr(config, name, None) for name in CONTEXT_LENGTH_KEYS)
        length = next(filter(None, lengths), None)
        return int(length) if length and length > 0 else None  # XLNet's config has -1

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text."""
        ids = self.generation_config.get("eos_token_id", self.model.config.eos_token_id)
        if ids is None:
            eos = self.tokenizer.special_tokens.get("eos_token")
            ids = self.tokenizer.backend.token_to_id(eos) if eos else None
        listed = ids if isinstance(ids, list) else [ids]
        return frozenset(i for i in listed if type(i) is int)

    @cached_property
    def can_batch(self) -> bool:
        """Whether prompts of different lengths can be padded to one batch."""
        return can_pad(self.model)

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The names of the arguments that the model takes."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    def new_cache(self, *, rewinds: bool = False) -> Cache | None:
        """Return an empty key-value cache, None if the model works without one.

        `rewinds` lets it be cropped although the model has a sliding window, for more memory.
        """
        return new_cache(self.model, rewinds=rewinds)

    def forward(
        self,
        input_ids: torch.Tensor,
        cache: Cache | None = None,
        *,
        last: int | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """Return the logits after each token: float32 [sequences, tokens, vocabulary].

        Args:
            input_ids: [sequences, tokens].
            cache: has the tokens that come before, and gets these as well.
            last: return only the logits after this number of last tokens.
            inputs: other arguments of the model.

        Raises:
            HftoolError: the memory does not suffice, or the model's files don't fit together.
        """
        if last is not None and "logits_to_keep" in self.parameters:
            inputs["logits_to_keep"] = last
        with model_errors():
            if cache is None:
                output = self.model(input_ids=input_ids, use_cache=False, **inputs)
            else:
                output = cache.run(self.model, input_ids, **inputs)
        logits = output.logits if last is None else output.logits[:, -last:]
        result: torch.Tensor = logits.float()
        return result


@dataclass(frozen=True)
class Classifier:
    """A sequence-classification model with its tokenizer; `labels` in the order of its logits,
    `activation` what makes scores of them."""

    name: str
    model: Any
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    activation: Activation
    max_length: int | None


def load_language_model(options: LoadOptions) -> LanguageModel:
    """Load a causal language model.

    Raises:
        HftoolError: it can't be had, is no causal language model, or its files are broken.
    """
    folder = ensure_local(options.model, "model", options)
    _require(folder, options.model, GENERATOR_SUFFIXES, "a language model that generates text")
    if read_json(folder / "config.json").get("is_encoder_decoder"):
        raise HftoolError(
            f"{options.model} is an encoder-decoder, not a causal language model",
            "`hftool models list` shows models that generate text",
        )
    return LanguageModel(
        options.model,
        _load("AutoModelForCausalLM", folder, options, plain=True),
        load_tokenizer(options.model, options),
        read_json(folder / "generation_config.json"),
        lambda: _load("AutoModelForCausalLM", folder, options),
    )


def load_classifier(options: ClassifierOptions) -> Classifier:
    """Load a sequence-classification model.

    Raises:
        HftoolError: it can't be had, is no classifier, or its files are broken.
    """
    name = options.model or DEFAULT_CLASSIFIER
    folder = ensure_local(name, "model", options)
    _require(folder, name, (CLASSIFIER_SUFFIX,), "a text classifier")
    model = _load("AutoModelForSequenceClassification", folder, options, plain=True)
    config = model.config
    tokenizer = load_tokenizer(name, options)
    limits = [
        _positions(model),
        tokenizer.config.get("model_max_length"),
    ]
    return Classifier(
        name,
        model,
        tokenizer,
        _labels(config),
        _activation(config),
        min(
            (int(n) for n in limits if isinstance(n, int | float) and 1 <= n < NO_LIMIT),
            default=None,
        ),
    )


def _labels(config: Any) -> tuple[str, ...]:
    """The labels by the place of their logit, with that place in the name of those named alike."""
    names = [str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels)]
    return tuple(n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names))


def _positions(model: Any) -> int | None:
    """How many tokens a model has positions for: RoBERTa and its kin count from behind the id of
    the padding token."""
    most = getattr(model.config, "max_position_embeddings", None)
    embeddings = getattr(getattr(model, "base_model", None), "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return most if most is None or padding is None else int(most) - padding - 1


def _activation(config: Any) -> Activation:
    """As transformers' TextClassificationPipeline chooses it."""
    if config.problem_type == "regression":
        return "none"
    multi_label = config.problem_type == "multi_label_classification" or config.num_labels == 1
    return "sigmoid" if multi_label else "softmax"


def _require(folder: Path, name: str, suffixes: tuple[str, ...], what: str) -> None:
    """Raise where config.json names architectures and none of them ends as it should."""
    architectures = architectures_of(folder)
    if architectures and not any(a.endswith(suffixes) for a in architectures):
        hint = (
            "`sentiment` takes classifiers"
            if any(a.endswith(CLASSIFIER_SUFFIX) for a in architectures)
            else "`hftool models list` shows models for each task"
        )
        raise HftoolError(f"{name} is not {what} (it is a {architectures[0]})", hint)


def _load(
    auto: Literal["AutoModelForCausalLM", "AutoModelForSequenceClassification"],
    folder: Path,
    options: LoadOptions | ClassifierOptions,
    *,
    plain: bool = False,
) -> Any:
    device = choose_device(options.device)
    # Labels with a score are compared and stored: in float32 every CPU gives the same.
    classifier = isinstance(options, ClassifierOptions)
    exact = classifier and device.type == "cpu" and options.quantize == "none"
    asked = "float32" if exact and options.dtype == "auto" else options.dtype
    dtype = choose_dtype(asked, device)
    bits = None if options.quantize == "none" else options.quantize
    trusted = options.trust_remote_code
    plain = plain and device.type == "cpu" and not trusted

    def read() -> Any:
        log.debug("started and imported in %.2f s", _age())
        if not trusted:
            require_plausible(folder, read_json(folder / "config.json"))
        began = time.perf_counter()
        with _loading_errors(folder):
            read_plain = read_bert if classifier else read_llama
            model = read_plain(folder, dtype, bits) if plain else None
        if model is None:
            model = _from_pretrained(auto, folder, dtype, device, bits, trusted)
        seconds = time.perf_counter() - began
        log.debug("loaded %s: %s on %s in %.2f s", folder, dtype, device, seconds)
        return model

    return cached(read, folder, auto, device, dtype, bits, trusted, plain)


def _age() -> float:
    """Seconds since this process began."""
    created: float = psutil.Process().create_time()
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux knows the second it booted in, and no more
        booted: float = psutil.boot_time()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - (created - booted)
    return time.time() - created


def _from_pretrained(
    auto: Literal["AutoModelForCausalLM", "AutoModelForSequenceClassification"],
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    bits: Bits | None,
    trusted: bool,
) -> Any:
    """A model of transformers' own class, in evaluation mode."""
    import transformers

    with _quietly(), _loading_errors(folder):
        if not trusted:
            _require_size(getattr(transformers, auto), folder)
        model, info = getattr(transformers, auto).from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=None if trusted else True,
            trust_remote_code=trusted,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported below
        )
        model = model.to(device)
    if bits is not None:
        quantize(model, bits, inputs_too=auto.endswith(CLASSIFIER_SUFFIX))
    if problem := weights_problem(info):
        raise HftoolError(f"{folder} {problem}")
    compute_first_token_only(model)
    return model.eval()


def _require_size(auto: Any, folder: Path) -> None:
    """Raise where a config describes a model far larger than its weights, by whichever of its
    values: it is built without memory first, which takes some 0.03 s."""
    from transformers import AutoConfig

    own: dict[str, Any] = {"trust_remote_code": False}
    config = AutoConfig.from_pretrained(folder, local_files_only=True, **own)
    with torch.device("meta"):
        built = sum(weight.numel() for weight in auto.from_config(config, **own).parameters())
    stored = sum(sizes_of_tensors(folder))
    if built > SLACK * stored:
        raise HftoolError(
            f"{folder}/config.json is of a model of {built:,} numbers, and the weights are"
            f" {stored:,} numbers"
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """transformers' advice is shown with -v alone, its progress bars never."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if not log.isEnabledFor(logging.DEBUG):
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    yield


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """What torch raises where the memory does not suffice, as one line.

    Raises:
        HftoolError: instead of it, with what would help.
    """
    try:
        yield
    except Exception as error:
        if is_little_memory(error):
            raise HftoolError(
                "not enough memory for the model",
                "try --dtype bfloat16, a shorter text, a smaller --batch-size or a smaller model",
            ) from error
        raise


@contextlib.contextmanager
def model_errors() -> Iterator[None]:
    """As `memory_errors`, and what a model's code raises where its config does not fit the weights.

    Raises:
        HftoolError: instead of it.
    """
    try:
        with memory_errors():
            yield
    except HftoolError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise HftoolError(
            f"the model fails: {cause[:300]}", "its config.json may not fit its weights"
        ) from error


@contextlib.contextmanager
def _loading_errors(folder: Path) -> Iterator[None]:
    """What from_pretrained raises for broken or unknown files, as one line."""
    try:
        with memory_errors():
            yield
    except HftoolError:
        raise
    except SafetensorError as error:
        raise HftoolError(f"cannot read the weights in {folder}: {error}") from None
    except pickle.UnpicklingError as error:
        raise HftoolError(
            f"cannot read the pickled weights in {folder}: broken, or more than weights",
            "a safetensors copy of the model has neither trouble",
        ) from error
    except Exception as error:  # a wrong value in config.json can raise anything
        cause = " ".join(str(error).split())
        hint = None
        if not isinstance(error, OSError | ValueError | RuntimeError | ImportError):
            cause = f"{type(error).__name__}: {cause}"
        if "trust_remote_code" in cause:
            cause = "it needs the repository's own code"
            hint = "--trust-remote-code runs that code; read it first"
        raise HftoolError(f"cannot load {folder}: {cause[:300]}", hint) from error
