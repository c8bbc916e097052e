"""Options that choose a model, and where and how it computes."""

import functools
from dataclasses import dataclass, field
from typing import Annotated, Literal

from hftool.options.completion import known_models
from hftool.options.shared import panel_option

Device = str
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "int8", "int4"]

DEFAULT_MODEL = "smollm2"
DEFAULT_CLASSIFIER = "minilm-sst2"


_model = functools.partial(panel_option, panel="Model")
HUB_TOKEN_HELP = "Hub token; else HF_TOKEN, or what `hf auth login` stored."
MODEL_HELP = "A folder, a .gguf file, an alias (see `hftool models list`) or a hub id owner/name."


@dataclass(frozen=True)
class SourceOptions:
    """Where a model's files come from."""

    revision: Annotated[
        str | None,
        _model("--revision", metavar="REV", help="Branch, tag or commit of a hub model."),
    ] = None
    offline: Annotated[
        bool, _model("--offline", envvar="HF_HUB_OFFLINE", help="Never ask the hub.")
    ] = False
    hub_token: Annotated[
        str | None, _model("--token", "--hub-token", metavar="TOKEN", help=HUB_TOKEN_HELP)
    ] = field(default=None, repr=False)
    trust_remote_code: Annotated[
        bool,
        _model("--trust-remote-code", help="Allow pickled weights and the repository's own code."),
    ] = False


@dataclass(frozen=True)
class DaemonClientOptions(SourceOptions):
    """Options of a command that the daemon can run.

    `hftool.server.client` looks for --no-daemon in the command line before Typer parses it.
    """

    no_daemon: Annotated[
        bool, _model("--no-daemon", help="Do not use the daemon, even if one is running.")
    ] = False


@dataclass(frozen=True)
class ModelOptions(DaemonClientOptions):
    """Which language model's files."""

    model: Annotated[
        str,
        _model(
            "--model",
            "-m",
            metavar="REF",
            envvar="HFTOOL_MODEL",
            help=MODEL_HELP,
            autocompletion=known_models,
        ),
    ] = DEFAULT_MODEL


@dataclass(frozen=True)
class ComputeOptions:
    """Where a model computes, and in which precision."""

    device: Annotated[
        Device, _model("--device", metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.")
    ] = "auto"
    dtype: Annotated[Dtype, _model("--dtype", help="Precision to compute in.")] = "auto"
    quantize: Annotated[
        Quantization, _model("--quantize", help="Keep weights in 8 or 4 bits (on a CPU).")
    ] = "none"


@dataclass(frozen=True)
class LoadOptions(ComputeOptions, ModelOptions):
    """A language model, loaded."""


@dataclass(frozen=True)
class TopkLoadOptions(LoadOptions):
    """As `LoadOptions`; in `topk`, --token names a token of the vocabulary."""

    hub_token: Annotated[
        str | None, _model("--hub-token", metavar="TOKEN", help=HUB_TOKEN_HELP)
    ] = field(default=None, repr=False)


@dataclass(frozen=True)
class ClassifierOptions(ComputeOptions, DaemonClientOptions):
    """A classifier, or what else gives texts a label, loaded."""

    model: Annotated[
        str | None,
        _model(
            "--model",
            "-m",
            metavar="REF",
            envvar="HFTOOL_SENTIMENT_MODEL",
            help=MODEL_HELP,
            show_default=DEFAULT_CLASSIFIER,
            autocompletion=known_models,
        ),
    ] = None
