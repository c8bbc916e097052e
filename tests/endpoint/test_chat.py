"""`chat` at an endpoint."""

import json
from pathlib import Path

from tests.conftest import run
from tests.endpoint_server import Server


def test_each_turn_sends_the_whole_chat(server: Server, tmp_path: Path) -> None:
    saved = tmp_path / "chat.json"
    arguments = ("-s", "Be brief.", "-n", "4", "--seed", "5", "--save", str(saved))
    result = run(
        *("chat", "-m", server.address, *arguments, "--format", "jsonl"),
        stdin="Hello\n/tokens\nAnd?\n/template\n",
    )
    assert result.exit_code == 1 and "the server has the template" in result.stderr
    turns = [json.loads(line) for line in result.stdout.splitlines()]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    assert [turn["seed"] for turn in turns if turn["role"] == "assistant"] == [5, 6]
    assert turns[1]["completion_tokens"] == 4 and turns[1]["prompt_tokens"] > 10
    first, second = (body["messages"] for _, body, _ in server.requests)
    answer = {"role": "assistant", "content": turns[1]["content"]}
    assert second == [*first, answer, {"role": "user", "content": "And?"}]
    assert json.loads(saved.read_text())["model"] == "tiny"


def test_what_the_server_does_not_know_is_refused_before_the_first_turn(server: Server) -> None:
    result = run("chat", "-m", server.address, "--typical-p", "0.4", stdin="Hello\n")
    assert result.exit_code == 1 and "does not know --typical-p" in result.stderr
    assert server.requests == []
    changed = run("chat", "-m", server.address, stdin="/set typical_p 0.4\n")
    assert "does not know --typical-p" in changed.stderr
