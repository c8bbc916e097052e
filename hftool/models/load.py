"""Load models into memory: the only calls of `from_pretrained` that a command makes."""

import contextlib
import copy
import inspect
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from hftool.errors import HftoolError
from hftool.json_files import read_json
from hftool.models.checkpoints import (
    report_two_sets,
    report_unused,
    require_known_quantization,
)
from hftool.models.conversion import weights_problem
from hftool.models.device import choose_device, choose_dtype
from hftool.models.generation_config import read_generation_config
from hftool.models.local_files import architectures_of, ensure_local, read_tokenizer
from hftool.models.model_class import (
    AutoClass,
    ModelClass,
    find_auto_class,
    text_class,
    uses_all_text,
)
from hftool.models.model_errors import loading_errors, model_errors
from hftool.models.references import ModelSource, resolve_reference
from hftool.models.resident import cached
from hftool.models.validation import SLACK, read_tensor_shapes, require_plausible, tensor_sizes
from hftool.nn.architectures import (
    CLASSIFIER_SUFFIX,
    GENERATOR_SUFFIXES,
    LLAMA_MODEL_TYPES,
    computed_model_type,
    context_length,
)
from hftool.nn.bert import read_bert
from hftool.nn.cache import Cache, can_pad, new_cache
from hftool.nn.first_token_pooling import compute_first_token_only
from hftool.nn.llama import Llama, read_llama
from hftool.nn.quantization import Bits, quantize
from hftool.nn.rope import LengthDependence, forget_lengths, length_dependence
from hftool.nn.weights import unknown_token
from hftool.options.model import (
    DEFAULT_CLASSIFIER,
    ClassifierOptions,
    ExactLoadOptions,
    LoadOptions,
)
from hftool.tokenization.tokenizer import Tokenizer

log = logging.getLogger("hftool")

Activation = Literal["softmax", "sigmoid", "none"]
MAX_EXACT_BYTES = 4 << 30  # of float32 weights, for commands whose results are numbers
FLOAT32_BYTES = 4
LARGEST_ID = 2**31  # no vocabulary is as large; -1 stands for no token
_LANGUAGE = re.compile(r"__[a-z]{2,3}__|>>\w+<<|<2\w+>|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")
NO_LIMIT = 1e9  # tokens; transformers writes 1e30 for a tokenizer without a limit


@dataclass(eq=False)
class LanguageModel:
    """A causal language model with its tokenizer.

    `model` is in evaluation mode: one of transformers' classes, or `hftool.nn.llama.Llama`, which
    is called like them. `keeps_cache` is set to False when its key-value cache turns out not to
    work; `pads` is None until it is known whether it computes padded prompts rightly, `is_causal`
    until it is known whether its logits depend only on the tokens before. A masked model fills in
    masks, and can't continue a text. An encoder-decoder reads `source`, and writes in the language
    `target_lang`.
    """

    name: str
    model: Any
    tokenizer: Tokenizer
    generation_config: dict[str, Any]
    load_transformers_model: Callable[[], Any]
    keeps_cache: bool = True
    pads: bool | None = None
    is_causal: bool | None = None
    is_masked: bool = False
    source: tuple[int, ...] = ()
    target_lang: str | None = None

    @cached_property
    def transformers_model(self) -> Any:
        """The model as transformers' class, which has a method `generate`."""
        return self.model if hasattr(self.model, "generate") else self.load_transformers_model()

    @cached_property
    def context_length(self) -> int | None:
        """The maximum number of tokens the model can see, None if its config has no limit."""
        config = self.model.config.get_text_config()
        values = config.to_dict() if hasattr(config, "to_dict") else vars(config)
        length = context_length(values)
        return None if length is None else length - _first_position(self.model)

    @cached_property
    def length_dependence(self) -> LengthDependence | None:
        """How the angles of the model's position embeddings depend on the length of the text."""
        return length_dependence(self.model.config.get_text_config())

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The ids of the tokens that end a text."""
        config = self.model.config
        ids = self.generation_config.get("eos_token_id", getattr(config, "eos_token_id", None))
        if ids is None:
            ids = getattr(config.get_text_config(), "eos_token_id", None)
        if ids is None:
            eos = self.tokenizer.special_tokens.get("eos_token")
            ids = self.tokenizer.backend.token_to_id(eos) if eos else None
        listed = ids if isinstance(ids, list) else [ids]
        return frozenset(i for i in listed if type(i) is int and 0 <= i < LARGEST_ID)

    @cached_property
    def is_encoder_decoder(self) -> bool:
        """Whether the prompt is a source that an encoder reads, and not the beginning of a text."""
        return bool(getattr(self.model.config, "is_encoder_decoder", False))

    def _token_id(self, name: str) -> int | None:
        """Return the id of a token that the model's files name, None if they don't."""
        config = self.model.config
        given = [self.generation_config.get(name)]
        given += [getattr(c, name, None) for c in (config, config.get_text_config(decoder=True))]
        found = next((value for value in given if value is not None), None)
        return found[0] if isinstance(found, list) else found

    def reading(self, source: Sequence[int]) -> "LanguageModel":
        """Return the model for texts of this source."""
        bound = copy.copy(self)
        bound.source = tuple(source)
        return bound

    def split_prompt(self, ids: Sequence[int]) -> tuple[list[int], tuple[int, ...]]:
        """Return the tokens that a text begins with, and its source.

        Raises:
            HftoolError: the model does not know the language, or the source is too long.
        """
        if not self.is_encoder_decoder:
            return list(ids), ()
        start = self._token_id("decoder_start_token_id")
        begins = [self._token_id("bos_token_id") or 0 if start is None else start]
        source = list(ids)
        if self.target_lang is not None:
            token_id, reads = language_token(self.tokenizer, self.target_lang)
            (source.insert(0, token_id) if reads else begins.append(token_id))
        config = self.model.config
        limit = getattr(config, "max_encoder_position_embeddings", None) or self.context_length
        if limit is not None and len(source) > limit:
            raise HftoolError(
                f"the prompt has {len(source)} tokens; the encoder of {self.name} reads {limit}",
                "shorten it: `hftool encode --max-tokens N` shows where it would be cut",
            )
        return begins, tuple(source)

    @torch.inference_mode()
    def encode(self, sources: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return the arguments that give a decoder its sources: none without an encoder.

        Raises:
            HftoolError: as `forward`, or an encoder-decoder has no source.
        """
        if not self.is_encoder_decoder:
            return {}
        width = max(map(len, sources), default=0)
        if not width:
            raise HftoolError(
                f"{self.name} is an encoder-decoder",
                "`generate`, `sample`, `topk` and `score --given` take those",
            )
        device = self.model.device
        padding = self._token_id("pad_token_id") or 0
        rows = [[*source, *[padding] * (width - len(source))] for source in sources]
        ids = torch.tensor(rows, device=device)
        mask = torch.tensor([[i < len(s) for i in range(width)] for s in sources], device=device)
        with model_errors():
            encoder = self.model.get_encoder()
            outputs = encoder(input_ids=ids, attention_mask=mask.long(), return_dict=True)
        return {"encoder_outputs": outputs, "attention_mask": mask.long()}

    @cached_property
    def can_batch(self) -> bool:
        """Whether prompts of different lengths can be padded to one batch, as far as the model's
        signature tells."""
        return can_pad(self.model)

    @cached_property
    def argument_names(self) -> frozenset[str]:
        """The names of the arguments that the model takes."""
        return frozenset(inspect.signature(self.model.forward).parameters)

    @cached_property
    def embedding_rows(self) -> int:
        """The number of token ids that the model can read."""
        return _embedding_rows(self.model)

    def require_known(self, ids: Sequence[int]) -> None:
        """Raise where the model has no embedding for one of these token ids.

        Raises:
            HftoolError: with the id and the number of embeddings.
        """
        if ids and max(ids) >= self.embedding_rows:
            raise unknown_token(max(ids), self.embedding_rows)

    def new_cache(self, *, rewinds: bool = False) -> Cache | None:
        """Return an empty key-value cache, None if the model works without one.

        `rewinds` lets it be cropped although the model has a sliding window, for more memory.
        """
        return new_cache(self.model, rewinds=rewinds) if self.keeps_cache else None

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
            HftoolError: the memory does not suffice, the model has no embedding for an id, or its
                files don't fit together.
        """
        if (most := int(input_ids.max())) >= self.embedding_rows:
            raise unknown_token(most, self.embedding_rows)
        if last is not None and "logits_to_keep" in self.argument_names:
            inputs["logits_to_keep"] = last
        if self.length_dependence is not None and self.length_dependence.grows:
            forget_lengths(self.model)
        with model_errors():
            if cache is None:
                if "use_cache" in self.argument_names:
                    inputs["use_cache"] = False
                name = "decoder_input_ids" if self.is_encoder_decoder else "input_ids"
                if self.is_masked:
                    name = self.model.main_input_name  # Perceiver's is "inputs"
                output = self.model(**{name: input_ids}, **inputs)
            else:
                output = cache.run(self.model, input_ids, **inputs)
        logits = output.logits if last is None else output.logits[:, -last:]
        result: torch.Tensor = logits.float()
        return result


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
        return _embedding_rows(self.model)

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


def _embedding_rows(model: Any) -> int:
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):  # not one of transformers' usual classes
        config = model.config
        return int(getattr(config, "get_text_config", lambda: config)().vocab_size)
    return len(weight)


def load_language_model(options: LoadOptions, *, masked: bool = False) -> LanguageModel:
    """Load a language model that continues texts, with `masked` also one that fills in masks.

    Raises:
        HftoolError: the model is unknown, can't be downloaded, is not a causal language model, or
            its files are broken.
    """
    source = resolve_reference(options.model, options.revision)
    folder = ensure_local(source, "model", options, options.model)
    language_model = _language_model(source, folder, options)
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


def _language_model(source: ModelSource, folder: Path, options: LoadOptions) -> LanguageModel:
    name = options.model
    auto = _auto_class(folder, name, options.trust_remote_code)
    model = _load(auto, folder, options, fast=True)
    return LanguageModel(
        name,
        model,
        _tokenizer(source, folder, options, name),
        read_generation_config(folder),
        lambda: _load(auto, folder, options),
        pads=True if isinstance(model, Llama) else None,
        is_masked=auto == "AutoModelForMaskedLM",
        target_lang=options.target_lang,
    )


def _classifier(
    source: ModelSource, folder: Path, name: str, options: ClassifierOptions
) -> Classifier:
    _require(folder, name, (CLASSIFIER_SUFFIX,), "a text classifier")
    model = _load("AutoModelForSequenceClassification", folder, options, fast=True)
    tokenizer = _tokenizer(source, folder, options, name)
    most = getattr(model.config, "max_position_embeddings", None)
    most = most and most - _first_position(model)
    limits = (most, tokenizer.config.get("model_max_length"))
    lengths = (int(n) for n in limits if isinstance(n, int | float) and 1 <= n < NO_LIMIT)
    return Classifier(
        name,
        model,
        tokenizer,
        _labels(model.config, folder),
        _activation(model.config),
        min(lengths, default=None),
    )


def language_token(tokenizer: Tokenizer, code: str) -> tuple[int, bool]:
    """Return the token of a language to translate into, and whether it stands before the source
    (Marian, MADLAD) and not before the translation (mBART, M2M-100, NLLB).

    Raises:
        HftoolError: the tokenizer has no such token.
    """
    forms = {code: False, f"__{code}__": False, f">>{code}<<": True, f"<2{code}>": True}
    for token, reads in forms.items():
        token_id = tokenizer.backend.token_to_id(token)
        if token_id is not None:
            return token_id, reads
    known = sorted(t for t in tokenizer.backend.get_vocab() if _LANGUAGE.fullmatch(t))
    hint = f"it has {', '.join(known[:8])} …" if known else "it has no tokens of languages"
    raise HftoolError(f"the tokenizer has no token for the language '{code}'", hint)


def _tokenizer(
    source: ModelSource, folder: Path, options: LoadOptions | ClassifierOptions, name: str
) -> Tokenizer:
    if not (folder / "tokenizer.json").is_file():  # it has older files, which are converted
        folder = ensure_local(source, "tokenizer", options, name)
    return read_tokenizer(folder, name)


def _labels(config: Any, folder: Path) -> tuple[str, ...]:
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


def _first_position(model: Any) -> int:
    """Return the number that a model gives to the first token: RoBERTa and related models number
    them from one above the id of the padding token."""
    embeddings: Any = getattr(getattr(model, "base_model", None), "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def _activation(config: Any) -> Activation:
    """Return the activation that transformers' TextClassificationPipeline chooses."""
    if config.problem_type == "regression":
        return "none"
    multi_label = config.problem_type == "multi_label_classification" or config.num_labels == 1
    return "sigmoid" if multi_label else "softmax"


def _auto_class(folder: Path, name: str, trusted: bool) -> AutoClass:
    """Return the class that a language model is loaded with; the own code of a repository is
    always that of a causal one."""
    config = read_json(folder / "config.json")
    if trusted or computed_model_type(config, LLAMA_MODEL_TYPES):
        return "AutoModelForCausalLM"
    auto = find_auto_class(config, next(iter(architectures_of(folder)), None))
    if auto is None:
        _require(folder, name, GENERATOR_SUFFIXES, "a language model that generates text")
    return auto or "AutoModelForCausalLM"


def _require(folder: Path, name: str, suffixes: tuple[str, ...], what: str) -> None:
    """Raise an error if config.json names architectures, but none with one of these suffixes."""
    architectures = architectures_of(folder)
    if architectures and not any(a.endswith(suffixes) for a in architectures):
        hint = (
            "`sentiment` takes classifiers"
            if any(a.endswith(CLASSIFIER_SUFFIX) for a in architectures)
            else "`hftool models list` shows models for each task"
        )
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
    is_classifier = isinstance(options, ClassifierOptions)
    exact = options.dtype == "auto" and device.type == "cpu" and _is_exact(options, folder)
    dtype = choose_dtype("float32" if exact else options.dtype, device)
    bits = None if options.quantize == "none" else options.quantize
    trusted = options.trust_remote_code
    fast = fast and device.type == "cpu" and not trusted

    def read() -> Any:
        log.debug("started and imported in %.2f s", _process_age())
        if not trusted:
            require_plausible(folder, read_json(folder / "config.json"))
        began = time.perf_counter()
        report_two_sets(folder)
        model = None
        if fast:
            with loading_errors(folder):
                model = (read_bert if is_classifier else read_llama)(folder, dtype, bits)
        if model is None:
            model = _from_pretrained(auto, folder, dtype, device, bits, trusted)
        seconds = time.perf_counter() - began
        log.debug("loaded %s: %s on %s in %.2f s", folder, dtype, device, seconds)
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
    exact = FLOAT32_BYTES * sum(tensor_sizes(folder)) <= most
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


def _from_pretrained(
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
            if not trusted:
                _require_size(getattr(transformers, chosen.auto), chosen.config, folder)
            model, info = getattr(transformers, chosen.auto).from_pretrained(
                folder,
                config=chosen.config,
                key_mapping=chosen.key_mapping or None,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=None if trusted else True,
                trust_remote_code=trusted,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported below
            )
            if not chosen.key_mapping or uses_all_text(info):
                break
        model = model.to(device)
    if bits is not None:
        quantize(model, bits, inputs_too=auto.endswith(CLASSIFIER_SUFFIX))
    if problem := weights_problem(info):
        raise HftoolError(f"{folder} {problem}")
    if not chosen.key_mapping:  # else the weights for images and sounds are unused
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
    yield ModelClass(auto, read())


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
