"""An endpoint that this folder's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hftool.endpoint import client
from tests import tiny_models
from tests.endpoint_server import FIELDS, KEY, Server, serving


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model with wide weights."""
    return tiny_models.save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def running(tiny: Path) -> Iterator[Server]:
    """One server for all tests."""
    with serving(tiny) as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as new, and the key for it in the environment; hftool does not wait between
    attempts."""
    running.faults.clear()
    running.requests.clear()
    running.fields = dict(FIELDS)
    running.shifted = False
    running.owner = "vllm"
    running.logprobs.clear()
    monkeypatch.setenv("HFTOOL_API_KEY", KEY)
    monkeypatch.setattr(client, "PAUSES", (0.0, 0.0, 0.0))
    return running
