"""Options that choose a model, and where and how it computes."""

import functools
from dataclasses import dataclass, field
from typing import Annotated, Literal

from hftool.options.completion import known_models
from hftool.options.endpoint import EndpointOptions
from hftool.options.shared import option

Device = str
Dtype = Literal["auto", "float32", "bfloat16", "float16", "fp32", "bf16", "fp16", "half"]
Quantization = Literal["none", "int8", "int4"]

DEFAULT_MODEL = "smollm2"
DEFAULT_CLASSIFIER = "minilm-sst2"
LONG_DTYPES: dict[str, Dtype] = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
}

_model = functools.partial(option, panel="Model")
_language_model = functools.partial(
    option,
    "--model",
    "-m",
    panel="Model",
    metavar="REF",
    envvar="HFTOOL_MODEL",
    autocompletion=known_models,
    common=True,
)
MODEL_HELP = "Alias, hub id, folder or .gguf file."
REMOTE_MODEL_HELP = "Alias, hub id, folder, .gguf file, or URL#NAME of an endpoint."


@dataclass(frozen=True)
class SourceOptions:
    """The source of a model's files."""

    revision: Annotated[
        str | None,
        _model("--revision", metavar="REV", help="Branch, tag or commit of a hub model."),
    ] = None
    offline: Annotated[
        bool, _model("--offline", envvar="HF_HUB_OFFLINE", help="Never contact the hub.")
    ] = False
    hub_token: Annotated[
        str | None,
        _model(
            "--token",
            "--hub-token",
            metavar="TOKEN",
            help="Hub token, instead of HF_TOKEN or `hf auth login`.",
        ),
    ] = field(default=None, repr=False)
    trust_remote_code: Annotated[
        bool,
        _model("--trust-remote-code", help="Allow pickled weights and the repository's own code."),
    ] = False


@dataclass(frozen=True)
class DaemonClientOptions(SourceOptions):
    """The options of a command that the daemon can run."""

    # `server.client` looks for --no-daemon in the command line itself; nothing reads this field.
    no_daemon: Annotated[
        bool, _model("--no-daemon", help="Do not use the daemon, even if one is running.")
    ] = False


@dataclass(frozen=True)
class ModelOptions(DaemonClientOptions):
    """A language model, and the source of its files."""

    model: Annotated[str, _language_model(help=MODEL_HELP)] = DEFAULT_MODEL


@dataclass(frozen=True)
class ComputeOptions:
    """The device and the precision that a model computes in.

    A short name of a precision becomes the long one: `fp16` is `float16`.
    """

    device: Annotated[
        Device, _model("--device", metavar="auto|cpu|cuda[:N]|mps", help="Device to compute on.")
    ] = "auto"
    dtype: Annotated[
        Dtype,
        _model(
            "--dtype",
            metavar="auto|float32|bfloat16|float16",
            help="Precision to compute in; also fp32, bf16, fp16.",
        ),
    ] = "auto"
    quantize: Annotated[
        Quantization, _model("--quantize", help="Round weights to 8 or 4 bits (on a CPU).")
    ] = "none"
    adapter: Annotated[
        list[str] | None,
        _model(
            "--adapter",
            metavar="REF[:SCALE]",
            help="Put a LoRA adapter on the model (repeatable); without --model on its own.",
        ),
    ] = None

    def __post_init__(self) -> None:
        # Fields of a frozen dataclass can be set only this way.
        object.__setattr__(self, "dtype", LONG_DTYPES.get(self.dtype, self.dtype))
        if self.adapter:  # a model with adapters has a reference of its own
            model = getattr(self, "model", None)
            base = "" if model in (None, DEFAULT_MODEL) else model
            object.__setattr__(self, "model", "+".join([base, *self.adapter]))
            object.__setattr__(self, "adapter", None)


@dataclass(frozen=True)
class LoadOptions(ComputeOptions, EndpointOptions, ModelOptions):
    """A language model to load."""

    model: Annotated[str, _language_model(help=REMOTE_MODEL_HELP)] = DEFAULT_MODEL

    target_lang: Annotated[
        str | None,
        _model(
            "--target-lang",
            metavar="CODE",
            help="Language to translate into, for models with tokens of languages.",
        ),
    ] = None


@dataclass(frozen=True)
class ExactLoadOptions(LoadOptions):
    """A language model to load for a command whose results are numbers: `--dtype auto` is float32
    on a CPU if the model is small enough."""


@dataclass(frozen=True)
class ClassifierOptions(ComputeOptions, EndpointOptions, DaemonClientOptions):
    """A classifier to load, or with `--labels` a language model."""

    model: Annotated[
        str | None,
        _model(
            "--model",
            "-m",
            metavar="REF",
            envvar="HFTOOL_SENTIMENT_MODEL",
            help=REMOTE_MODEL_HELP,
            show_default=f"{DEFAULT_CLASSIFIER}, with --labels {DEFAULT_MODEL}",
            autocompletion=known_models,
            common=True,
        ),
    ] = None
