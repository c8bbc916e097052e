"""`topk`, `score` and `sentiment --labels` at an endpoint, against the same model here."""

import json
from pathlib import Path
from typing import Any

import pytest

from hftool.endpoint import scores
from hftool.terminal import visible
from tests.conftest import run
from tests.endpoint_server import Server


def both(server: Server, tiny: Path, command: str, *arguments: str, stdin: str = "") -> Any:
    """The records of a command at the endpoint, and with the model itself."""
    found = []
    for model in (["-m", server.address], ["-m", str(tiny), "--dtype", "float32"]):
        result = run(command, *model, *arguments, "--format", "jsonl", stdin=stdin)
        assert result.exit_code == 0, result.output
        found.append([json.loads(line) for line in result.stdout.splitlines()])
    return found


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        about = pytest.approx(value, abs=1e-4, rel=1e-4) if isinstance(value, float) else value
        assert found[name] == about, name


@pytest.mark.parametrize("arguments", [["a cat"], ["--chat", "a cat"], ["-s", "Hi", "a cat"]])
def test_topk(arguments: list[str], server: Server, tiny: Path) -> None:
    theirs, ours = both(server, tiny, "topk", *arguments, "-k", "4")
    for a, b in zip(theirs, ours, strict=True):
        assert (a["rank"], a["id"], a["entropy"]) == (b["rank"], None, None)
        assert a["token"] == b["token"] or "bytes:" in a["token"]
        for name in ("prob", "logprob", "cumulative"):
            assert a[name] == pytest.approx(b[name], abs=1e-5)
        assert a["position"] == b["position"]


@pytest.mark.parametrize("arguments", [["a cat"], ["--chat", "a cat"]])
def test_sample(arguments: list[str], server: Server, tiny: Path) -> None:
    theirs, ours = both(server, tiny, "sample", *arguments, "--greedy", "--steps", "6", "-k", "3")
    assert len(theirs) == len(ours)
    for a, b in zip(theirs, ours, strict=True):
        assert (a["step"], a["rank"], a["id"], a["drawn"]) == (b["step"], 1, None, None)
        seen = [candidate["prob"] for candidate in b["candidates"]]
        assert [each["prob"] for each in a["candidates"]] == pytest.approx(seen, abs=1e-5)
        assert a["unseen"] == pytest.approx(1 - sum(seen), abs=1e-5)
        assert a["prob"] == pytest.approx(b["prob"], abs=1e-5)


def test_sample_of_a_token_that_is_not_among_the_best(server: Server) -> None:
    arguments = ("-m", server.address, "a cat", "--steps", "9", "-k", "1", "--temperature", "3")
    result = run("sample", *arguments, "--seed", "3", "--format", "jsonl")
    body = server.requests[-1][1]
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (3, 3, 9)
    steps = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(steps) == 9 and {1, None} >= {step["rank"] for step in steps} >= {None}
    for step in steps:
        probs = [candidate["prob"] for candidate in step["candidates"]]
        assert len(probs) == 1 + (step["rank"] is None)
        assert step["prob"] == probs[-1] and step["unseen"] == pytest.approx(1 - sum(probs))
    again = run("sample", *arguments, "--seed", "3", "--format", "table")
    assert f"all other tokens: {steps[0]['unseen']:.4f}\n" in again.stdout
    assert again.stdout.endswith(f"\na cat{visible(steps[-1]['text'])}\n")


@pytest.mark.parametrize("command", ["sample", "topk"])
@pytest.mark.parametrize(
    ("logprobs", "cause"),
    [
        (None, "gives no log-probabilities"),
        ([None, None], "gives no log-probabilities"),
        ([-0.1, -0.2], "add up to 1.7236"),
        ([0.5, -1], "above 0, or no number"),
    ],
)
def test_wrong_logprobs(command: str, logprobs: Any, cause: str, server: Server) -> None:
    server.logprobs = [logprobs]
    result = run(command, "a", "-m", server.address, "-k", "2")
    assert result.exit_code == 1 and cause in result.stderr, result.output


def test_score(server: Server, tiny: Path) -> None:
    table = "story,ending,n\na dog sat,on a mat,1\nx,y z,2\n,end,3\n"
    arguments = ("--input-format", "csv", "--column", "ending", "--given-column", "story")
    theirs, ours = both(server, tiny, "score", *arguments, stdin=table)
    assert len(ours) == 3
    for a, b in zip(theirs, ours, strict=True):
        assert_close(a, b)
    theirs, ours = both(server, tiny, "score", "--given", "the dog", " sat", "d", "")
    assert [record["tokens"] for record in theirs] == [4, 1, 0]
    for a, b in zip(theirs, ours, strict=True):
        assert_close(a, b)


def test_own_labels(server: Server, tiny: Path) -> None:
    arguments = ("--labels", "joy,anger,fear", "--all-scores")
    for more in ([], ["--label-scoring", "sum"], ["--prompt-template", "{text} ({labels}):\n"]):
        theirs, ours = both(server, tiny, "sentiment", *arguments, *more, stdin="a cat\n\nnot\n")
        for a, b in zip(theirs, ours, strict=True):
            assert a["label"] == b["label"] and a["scores"] == pytest.approx(b["scores"], abs=1e-5)


def test_errors_keep_their_place(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "PROBES", ())
    server.faults += ["", "400", ""]
    arguments = ("-m", server.address, "--on-error", "report", "--concurrency", "1")
    result = run("score", *arguments, "--format", "jsonl", stdin="a cat\na dog\na bird\n")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["error" in record for record in found] == [False, True, False]
    assert "answered 400" in found[1]["error"]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["topk", "a", "--target", "b"], "--target does not work with an endpoint"),
        (["topk", "a", "--top-p", "0.5"], "a sampling option does not work"),
        (["score", "a", "--by", "token"], "--by token does not work"),
        (["sentiment", "a"], "an endpoint needs labels"),
        (["sample", "a", "--trace", "t"], "--trace does not work"),
        (["tree", "a"], "an endpoint has none"),
    ],
)
def test_what_an_endpoint_cannot_do(arguments: list[str], cause: str, server: Server) -> None:
    result = run(*arguments, "-m", server.address)
    assert result.exit_code in (1, 2) and cause in result.stderr, result.output
    assert server.requests == []


def test_a_server_with_wrong_logprobs_is_found_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Among these are some after which the model writes a letter, and not a part of one.
    monkeypatch.setattr(scores, "PROBES", tuple(a + b for a in "abcdefgh" for b in "stuvwxyz"))
    assert run("score", "ab", "-m", server.address).exit_code == 0
    server.shifted = True
    for arguments in (["score", "ab"], ["sentiment", "--labels", "a,b", "ab"]):
        result = run(*arguments, "-m", server.address)
        assert result.exit_code == 1 and "wrong log-probabilities" in result.stderr


def test_servers_without_logprobs(server: Server) -> None:
    server.fields = dict.fromkeys(server.fields, ("prompt", "max_tokens", "temperature"))
    for arguments in (["score", "ab"], ["sentiment", "--labels", "a,b", "ab"]):
        result = run(*arguments, "-m", server.address)
        assert result.exit_code == 1 and "no log-probabilities of a text" in result.stderr
        assert ("generate --choice LABEL" in result.stderr) is (arguments[0] == "sentiment")
    for command in ("topk", "sample"):
        result = run(command, "ab", "-m", server.address)
        assert result.exit_code == 1 and "gives no log-probabilities" in result.stderr
