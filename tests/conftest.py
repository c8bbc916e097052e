"""Fixtures for all tests: the two embedded models, converted once per session, a clean environment,
and helpers that run hftool in this process or in a new one."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from hftool.models.classifier import Classifier
from hftool.models.language_model import LanguageModel
from hftool.models.load import load_classifier, load_language_model
from hftool.models.local_files import ensure_local, load_tokenizer
from hftool.models.references import resolve_reference
from hftool.options.model import ClassifierOptions, LoadOptions, SourceOptions
from hftool.tokenization.tokenizer import Tokenizer

OFFLINE = SourceOptions(offline=True)
ALL_THREADS = torch.get_num_threads()
TESTS = Path(__file__).parent
EMBEDDED_MODELS = {"smollm2", "smollm2_folder", "minilm", "minilm_folder", "tokenizer"}
WHOLE_PROGRAM = {"run", "run_process", "subprocess", "pexpect", "model_folder"}
# Servers, conversions, tokenizers of real size.
LONG_FILES = [
    TESTS / name
    for name in (
        "e2e",
        "models/test_hub.py",
        "models/test_converted_copies.py",
        "server",
        "tokenization/test_real_tokenizers.py",
    )
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `fast`, for `make check`, the tests that call functions: those that use an embedded
    model, run a command or start a process are left out, and so are the long files."""
    for item in items:
        if (
            not any(item.path.is_relative_to(path) for path in LONG_FILES)
            and not item.get_closest_marker("slow")
            and not item.get_closest_marker("gpu")
            and not EMBEDDED_MODELS & set(getattr(item, "fixturenames", ()))
            and not WHOLE_PROGRAM & set(_names_used(getattr(item, "function", None)))
        ):
            item.add_marker("fast")


def _names_used(function: Any, seen: set[Any] | None = None) -> Iterator[str]:
    """Yield the names that a test and the helpers of its module use."""
    seen = set() if seen is None else seen
    if not isinstance(function, FunctionType) or function in seen:
        return
    seen.add(function)
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for name in code.co_names:
            yield name
            helper = function.__globals__.get(name)
            if getattr(helper, "__module__", "") == function.__module__:
                yield from _names_used(helper, seen)


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> None:
    """Let each worker of pytest-xdist compute on one thread, since the workers share the cores. In
    tests/nn it is all threads: the number of them may change how sums are rounded."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        in_nn = request.path.is_relative_to(TESTS / "nn")
        torch.set_num_threads(ALL_THREADS if in_nn else 1)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Let Ctrl-C reach the processes that tests start.

    A shell ignores SIGINT in what it runs in the background, and processes inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use a cache folder of this session's own, or the one that HFTOOL_TEST_CACHE names."""
    named = os.environ.get("HFTOOL_TEST_CACHE")
    cache = Path(named) if named else tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFTOOL_CACHE", str(cache))
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf-home")))
        yield cache


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide this machine's settings and the hub; set a terminal width of 80 columns."""
    for name in list(os.environ):
        if name.startswith("HFTOOL_") and name not in ("HFTOOL_CACHE", "HFTOOL_TEST_CACHE"):
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "HF_TOKEN", "HF_ENDPOINT", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HFTOOL_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HFTOOL_DAEMON", "off")
    monkeypatch.setenv("COLUMNS", "80")
    from hftool import config

    config.load.cache_clear()


@pytest.fixture
def hftool_on_path(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Put `hftool` on PATH, run from this source by this Python."""
    program = tmp_path_factory.mktemp("bin") / "hftool"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hftool "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    return program


@pytest.fixture
def notes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """Capture the core's log records, even if a command has turned propagation off before."""
    monkeypatch.setattr(logging.getLogger("hftool"), "propagate", True)
    caplog.set_level(logging.INFO, "hftool")
    return caplog


def model_folder(name: str) -> Path:
    """The folder that a model is loaded from."""
    return ensure_local(resolve_reference(name), "model", OFFLINE, name)


@pytest.fixture(scope="session")
def smollm2_folder(shared_cache: Path) -> Path:
    """The converted copy of SmolLM2."""
    return model_folder("smollm2")


@pytest.fixture(scope="session")
def minilm_folder(shared_cache: Path) -> Path:
    """The converted copy of MiniLM with the sentiment adapter."""
    return model_folder("minilm-sst2")


@pytest.fixture(scope="session")
def tokenizer(smollm2_folder: Path) -> Tokenizer:
    """SmolLM2's tokenizer (byte-level BPE)."""
    return load_tokenizer("smollm2", OFFLINE)


@pytest.fixture(scope="session")
def smollm2(smollm2_folder: Path) -> LanguageModel:
    """SmolLM2 in float32."""
    return load_language_model(LoadOptions(dtype="float32", device="cpu", offline=True))


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> Classifier:
    """The embedded classifier in float32."""
    return load_classifier(ClassifierOptions(dtype="float32", device="cpu", offline=True))


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    """Run a command in this process; the result has `.stdout`, `.stderr` and `.exit_code`."""
    from hftool.cli.app import app

    return CliRunner().invoke(app, list(arguments), input=stdin if stdin is not None else "")


@dataclass(frozen=True)
class Finished:
    """The exit status and the output of a process that has ended."""

    status: int
    stdout: str
    stderr: str


def run_process(
    *arguments: str,
    stdin: str | bytes | None = None,
    environment: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
    timeout: float = 120,
    **settings: Any,
) -> Finished:
    """Run a command in a new process, whose stdin is empty unless given."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    process = subprocess.run(
        [*prefix, sys.executable, "-m", "hftool", *arguments],
        input=data if data is not None else b"",
        env={**os.environ, **(environment or {})},
        capture_output=True,
        timeout=timeout,
        **settings,
    )
    return Finished(
        process.returncode,
        process.stdout.decode(errors="surrogateescape"),
        process.stderr.decode(errors="surrogateescape"),
    )
