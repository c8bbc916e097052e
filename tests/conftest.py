"""Real models, converted once per session, and the command line as a user calls it."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hftool.models.load import Classifier, LanguageModel, load_classifier, load_language_model
from hftool.models.local_files import ensure_local, load_tokenizer
from hftool.models.references import resolve_reference
from hftool.options.model import ClassifierOptions, LoadOptions, SourceOptions
from hftool.tokenization.tokenizer import Tokenizer

OFFLINE = SourceOptions(offline=True)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Ctrl-C reaches the processes that tests start, also where the tests run in the background:
    there the shell has it ignored, and processes inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the session's own, unless HFTOOL_TEST_CACHE names one to keep."""
    named = os.environ.get("HFTOOL_TEST_CACHE")
    cache = Path(named) if named else tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFTOOL_CACHE", str(cache))
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf-home")))
        yield cache


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine's own, no hub, a terminal of 80 columns."""
    for name in list(os.environ):
        if name.startswith("HFTOOL_") and name not in ("HFTOOL_CACHE", "HFTOOL_TEST_CACHE"):
            monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "HF_TOKEN", "HF_ENDPOINT", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HFTOOL_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HFTOOL_SERVER", "off")
    monkeypatch.setenv("COLUMNS", "80")
    from hftool import config

    config.load.cache_clear()


@pytest.fixture
def hftool_on_path(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """`hftool` as a program that shells find: this source, this Python."""
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
    """What the core logs; a command may have turned that off for this process."""
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
    """A command in this process: `.stdout`, `.stderr`, `.exit_code`."""
    from hftool.cli.app import app

    return CliRunner().invoke(app, list(arguments), input=stdin if stdin is not None else "")


@dataclass(frozen=True)
class Finished:
    """A process that ended."""

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
    """A command as a process of its own, stdin closed unless given."""
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
