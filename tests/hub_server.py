"""A hub for the tests: a real HTTP server on this machine, and small models for it to give out.

It answers what huggingface_hub asks (model info, file tree, files) with the hub's own statuses and
`X-Error-Code` headers, counts the requests, and says no in every way the hub does. A process meets
it through HF_ENDPOINT.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

TOKEN = "hf_of_somebody_who_may"
COMMIT = "1" * 40
_INFO = re.compile(r"/api/models/([^/]+(?:/[^/]+)?)(?:/revision/(.+))?")
_TREE = re.compile(r"/api/models/([^/]+(?:/[^/]+)?)/tree/([^/]+)")
_FILE = re.compile(r"/([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)")
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>")


@dataclass
class Repository:
    """A repository: its files by commit, and the branches and tags that name a commit."""

    files: dict[str, dict[str, bytes]]
    refs: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    gated: bool = False
    private: bool = False

    def commit(self, revision: str) -> str | None:
        """The commit a revision names, None where there is none."""
        commit = self.refs.get(revision, revision)
        return commit if commit in self.files else None


@dataclass
class Hub:
    """What the server holds, and what it was asked: (method, path, Authorization)."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    # A part of a path -> the status answered wherever it occurs.
    failures: dict[str, int] = field(default_factory=dict)
    # Parts of paths that are never answered, until `released`.
    silent: list[str] = field(default_factory=list)
    # Answered to everything, where the server is to be something other than a hub.
    page: bytes | None = None
    released: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, folder: Path, **settings: Any) -> Repository:
        """A repository of one commit, with a folder's files."""
        files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
        self.repositories[name] = Repository({COMMIT: files}, **settings)
        return self.repositories[name]

    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [path for _, path, _ in self.requests]


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers while the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        path = path.replace("/api/datasets/", "/api/models/").removeprefix("/datasets")
        token = self.headers.get("Authorization")
        hub.requests.append((self.command, path, token))
        if any(part in path for part in hub.silent):
            hub.released.wait(60)
            return
        if hub.page is not None:
            return self._send(200, hub.page, {"Content-Type": "text/html"})
        if status := next((s for part, s in hub.failures.items() if part in path), None):
            return self._refuse(status)
        match = _TREE.fullmatch(path) or _INFO.fullmatch(path) or _FILE.fullmatch(path)
        repository = hub.repositories.get(match[1]) if match else None
        may = token == f"Bearer {TOKEN}"
        if match is None or repository is None or (repository.private and not may):
            # As the hub does: who gives no token isn't told whether there is one.
            return self._refuse(404 if token else 401, "RepoNotFound")
        commit = repository.commit(match[2] or "main")
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        if match.re is _FILE:
            if repository.gated and not may:
                return self._refuse(403 if token else 401, "GatedRepo")
            return self._file(repository.files[commit].get(match[3]), commit)
        files = repository.files[commit]
        if match.re is _INFO:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            return self._json({"id": match[1], "sha": commit, "siblings": siblings})
        entries = [
            {"type": "file", "path": name, "oid": _etag(data), "size": len(data)}
            for name, data in files.items()
        ]
        return self._json(entries)

    def _file(self, data: bytes | None, commit: str) -> None:
        if data is None:
            return self._refuse(404, "EntryNotFound")
        self._send(200, data, {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": commit})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def byte_tokenizer() -> Tokenizer:
    """A byte-level BPE: every byte, one merge ("th"), and four control tokens at the end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*letters, "th"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS]
    )
    return tokenizer


def tiny_llama() -> LlamaForCausalLM:
    """A seeded Llama of two layers over `byte_tokenizer`, with grouped key-value heads."""
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=261,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=257,
        eos_token_id=259,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def save_llama(folder: Path) -> LlamaForCausalLM:
    """`tiny_llama` as an ordinary model folder."""
    model = tiny_llama()
    model.save_pretrained(folder)
    _save_tokenizer(folder)
    return model


def save_classifier(folder: Path, labels: Sequence[str] = ("DULL", "BRIGHT")) -> None:
    """A seeded one-layer BERT classifier over `byte_tokenizer` as a model folder."""
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=261,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    _save_tokenizer(folder)


def _save_tokenizer(folder: Path) -> None:
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_gguf(
    path: Path,
    model: Any,
    leave_out: str = "no tensor",
    tensors_per_file: int = 0,
    architecture: str = "llama",
    name: str = "tiny",
    settings: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Sequence[float]] | None = None,
    quantized: str | None = None,
) -> None:
    """A model with the layers of Llama as a GGUF file in float32, with `byte_tokenizer`; its
    matrices in the blocks of a kind if one is `quantized`.

    `leave_out` names a tensor. With `tensors_per_file` it is several files. `settings`, by their
    names without the architecture, and `tensors` are added.

    Names and the order of the rows of Q and K as llama.cpp's convert_hf_to_gguf.py writes them.
    """
    config: Any = model.config
    writer = gguf.GGUFWriter(str(path), architecture, split_max_tensors=tensors_per_file)
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if architecture != "gpt2":
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(10000.0)
    vocabulary = sorted(byte_tokenizer().get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_token_types([control if t in CONTROL_TOKENS else normal for t, _ in vocabulary])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(259)
    for key, value in (settings or {}).items():
        writer.add_key_value(f"{architecture}.{key}", value, gguf.GGUFValueType.get_type(value))
    for key, numbers in (tensors or {}).items():
        writer.add_tensor(key, np.array(numbers, np.float32))
    for short, tensor in _named_for_gguf(model, architecture, leave_out):
        weight = tensor.contiguous().numpy()
        if quantized and weight.ndim > 1:
            blocks = gguf.GGMLQuantizationType[quantized]
            writer.add_tensor(short, gguf.quantize(weight, blocks), raw_dtype=blocks)
        else:
            writer.add_tensor(short, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf_tokenizer(path: Path, metadata: Mapping[str, Any]) -> None:
    """A GGUF file with these values, for its tokenizer, and one small tensor."""
    architecture = metadata.get("general.architecture", "llama")
    writer = gguf.GGUFWriter(str(path), architecture)
    for name, value in metadata.items():
        if name != "general.architecture":
            kind = gguf.GGUFValueType.get_type(value)
            parts = gguf.GGUFValueType.get_type(value[0]) if isinstance(value, list) else None
            writer.add_key_value(name, value, kind, parts)
    writer.add_tensor("token_embd.weight", np.zeros((300, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _named_for_gguf(
    model: Any, architecture: str, leave_out: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a model by their names in a GGUF file, in the order of its rows there.

    Experts are one tensor for gates, and one for what they multiply.
    """
    config: Any = model.config
    kind = next(k for k, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == leave_out or (name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        if ".experts." in name:
            layer = f"blk.{name.split('.')[2]}.ffn"
            parts = zip(("gate", "up"), tensor.chunk(2, 1), strict=True)
            each = [("down", tensor)] if name.endswith("down_proj") else parts
            yield from ((f"{layer}_{part}_exps.weight", weight) for part, weight in each)
            continue
        if ".q_proj." in name and architecture == "llama":
            tensor = _interleaved(tensor, config.num_attention_heads)
        elif ".k_proj." in name and architecture == "llama":
            tensor = _interleaved(tensor, config.num_key_value_heads)
        elif name.endswith("shared_expert_gate.weight"):
            tensor = tensor[0]
        elif architecture == "gpt2" and ".h." in name and tensor.ndim == 2:
            tensor = tensor.T
        elif architecture.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor + 1
        short = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if short is not None:  # T5 has its embeddings three times
            yield short, tensor


def _interleaved(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a head's two halves taken in turn: [0, 1, 2, 3] -> [0, 2, 1, 3]."""
    rows = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return rows.swapaxes(1, 2).reshape(tensor.shape)
