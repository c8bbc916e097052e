"""Small models with seeded random weights and a byte-level tokenizer, in folders.

Their weights are drawn wide, so that their distributions are far from flat and far from each other.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from hftool.models.classifier import Classifier
from hftool.models.gguf_weights import loading_arguments
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_classifier, load_language_model
from hftool.options.model import ClassifierOptions, LoadOptions

ARCHITECTURES = ("llama", "gemma3", "gpt2", "qwen3")
SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "[CLS]", "[SEP]", "[PAD]")
BYTES = 256
END, SYSTEM, USER, ASSISTANT, CLS, SEP, PAD = range(BYTES, BYTES + len(SPECIAL))
TOKENS = BYTES + len(SPECIAL)
VOCABULARY = TOKENS + 2  # two embedding rows without a token, as many real models have
SLIDING_WINDOW = 8

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A message costs its bytes and two tokens; what comes before the answer one more."""

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": END,
}
_GROUPED: dict[str, Any] = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8}


def _config(architecture: str, context: int) -> Any:
    length: dict[str, Any] = {"max_position_embeddings": context}
    if architecture == "llama":
        return LlamaConfig(**_GROUPED, **length)
    if architecture == "qwen3":
        return Qwen3Config(**_GROUPED, **length)
    if architecture == "gemma3":
        kinds = ["sliding_attention", "full_attention"]
        return Gemma3TextConfig(
            **_GROUPED,
            **length,
            sliding_window=SLIDING_WINDOW,
            layer_types=kinds,
            tie_word_embeddings=False,
        )
    assert architecture == "gpt2"
    return GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=context,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=END,
    )


def save_model(
    folder: Path,
    architecture: str = "llama",
    *,
    context: int = 128,
    seed: int = 0,
    generation_config: Mapping[str, Any] | None = None,
    weights: float | None = None,
    **settings: Any,
) -> Path:
    """A causal language model; `weights` sets every weight to one number, `generation_config` is
    its generation_config.json. `settings` go into its config.

    Returns: its folder.
    """
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM
    config = _config(architecture, context)
    for name, value in settings.items():
        setattr(config, name, value)
    model = auto.from_config(config, dtype=torch.float32).eval()
    if weights is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(weights)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    if generation_config is not None:
        (folder / "generation_config.json").write_text(json.dumps(dict(generation_config)))
    return folder


def save_classifier(
    folder: Path,
    labels: Sequence[str] = ("NEGATIVE", "POSITIVE"),
    *,
    architecture: str = "bert",
    max_length: int = 64,
    pad_token: bool = True,
    **settings: Any,
) -> Path:
    """A text classifier: a BERT, or one of `ARCHITECTURES`. `settings` go into its config.

    Returns: its folder.
    """
    torch.manual_seed(1)
    if architecture == "bert":
        config: Any = BertConfig(**_SIZES, max_position_embeddings=max_length)
    else:
        config = _config(architecture, max_length)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.pad_token_id = PAD if pad_token else None
    for name, value in settings.items():
        setattr(config, name, value)
    auto: Any = AutoModelForSequenceClassification
    auto.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, framed=architecture == "bert", model_max_length=max_length)
    return folder


def save_tokenizer(folder: Path, *, framed: bool = False, **settings: Any) -> None:
    """A token for each byte (its id is no byte's value) and the special ones.

    `framed` puts [CLS] before a text and [SEP] after it.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    if framed:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
        )
    tokenizer_class: Any = PreTrainedTokenizerFast
    fast = tokenizer_class(
        tokenizer_object=backend, eos_token=SPECIAL[0], pad_token="[PAD]", **settings
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def load_model(folder: Path, *, fast: bool = True) -> LanguageModel:
    """The model as hftool loads it, in float32; without `fast` as transformers' class."""
    options = LoadOptions(model=str(folder), dtype="float32", device="cpu", offline=True)
    return load_language_model(options, fast=fast)


def load_tiny_classifier(folder: Path) -> Classifier:
    """The classifier as hftool loads it, in float32."""
    return load_classifier(
        ClassifierOptions(model=str(folder), dtype="float32", device="cpu", offline=True)
    )


def transformers_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model as transformers alone loads it.

    For the copy of a GGUF file it gets the numbers that the blocks stand for;
    tests/nn/test_gguf_blocks.py compares them with gguf's.
    """
    known, source = loading_arguments(AutoModelForCausalLM, folder, None, dtype)
    model: Any = known.from_pretrained(**source, dtype=dtype)
    return model.eval()


def transformers_tokenizer(folder: Path) -> Any:
    """The tokenizer as transformers alone loads it."""
    return AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def all_logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """The logits after each token, by one pass without a cache: [tokens, vocabulary]."""
    logits: torch.Tensor = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return logits.float()


def greedy_ids(model: Any, ids: Sequence[int], tokens: int, **settings: Any) -> list[int]:
    """What transformers' own `generate` adds to `ids`."""
    prompt = torch.tensor([list(ids)])
    output = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=tokens,
        do_sample=False,
        **settings,
    )
    return [int(token_id) for token_id in output[0, len(ids) :]]
