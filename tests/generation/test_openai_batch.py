"""OpenAI's batch file: the requests that `vllm run-batch` takes, and answers in the same form."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_models
from tests.conftest import run

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 4}


def request(custom_id: str, body: dict[str, Any], url: str = "/v1/chat/completions") -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.save_model(tmp_path_factory.mktemp("tiny")))


def test_answers_are_those_of_hftools_own_form(tiny: str, tmp_path: Path) -> None:
    body = {"model": "gpt", "prompt": "ab", "max_tokens": 5, "seed": 3, "top_k": -1, "logprobs": 2}
    theirs = [
        request("one", {**CHAT, "model": "gpt", "temperature": 0, "n": 1, "user": "me"}),
        request("two", body, "/v1/completions"),
        request("three", {**CHAT, "n": 2}),
        request("four", CHAT, "/v1/embeddings"),
        request("five", {**CHAT, "best": 1}),
        "{",
    ]
    ours = [
        {"messages": CHAT["messages"], "max_new_tokens": 4, "temperature": 0},
        {"prompt": "ab", "max_new_tokens": 5, "seed": 3, "top_k": 0, "top_logprobs": 2},
    ]
    batch, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    batch.write_text("\n".join(theirs))
    arguments = ("generate", "-m", tiny, "--dtype", "float32", "--batch")
    assert run(*arguments, str(batch), "-o", str(output)).exit_code == 1
    found = [json.loads(line) for line in output.read_text().splitlines()]
    expected = run(*arguments, "-", stdin="\n".join(map(json.dumps, ours))).stdout.splitlines()
    chat, text = (json.loads(line) for line in expected)
    assert [a.get("custom_id") for a in found] == ["one", "two", "three", "four", "five", None]
    assert found[0]["error"] is None and found[0]["response"]["status_code"] == 200
    answer = found[0]["response"]["body"]
    assert answer["object"] == "chat.completion" and answer["model"] == tiny
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": chat["text"]}
    assert answer["usage"]["total_tokens"] == sum(chat["usage"].values())
    answer = found[1]["response"]["body"]
    assert (answer["object"], answer["seed"]) == ("text_completion", 3)
    choice = answer["choices"][0]
    assert choice["text"] == text["text"] and choice["finish_reason"] == text["finish_reason"]
    logprobs = [token["logprob"] for token in text["logprobs"]]
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(logprobs)
    assert [a["response"] for a in found[2:5]] == [None] * 3
    causes = [a["error"]["message"] for a in found[2:5]]
    assert causes == [
        "hftool has no option for n",
        "the record must be for POST /v1/chat/completions or POST /v1/completions",
        "unknown field best",
    ]
    assert "not valid JSON" in found[5]["error"]
    batch.write_text(batch.read_text() + "\n" + request("seven", CHAT))
    run(*arguments, str(batch), "-o", str(output), "--resume")
    assert output.read_text().splitlines()[:6] == [json.dumps(a, ensure_ascii=False) for a in found]
    assert json.loads(output.read_text().splitlines()[6])["custom_id"] == "seven"
