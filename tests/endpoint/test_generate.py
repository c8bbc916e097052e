"""`generate` at an endpoint: what is sent, what comes back, and servers that misbehave."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from hftool.endpoint.in_order import in_order
from hftool.errors import HftoolError
from tests import tiny_models
from tests.conftest import run, run_process
from tests.endpoint_server import KEY, Server


def generate(server: Server, *arguments: str, stdin: str | None = None) -> Result:
    return run("generate", "-m", server.address, *arguments, stdin=stdin)


def records(result: Result) -> list[Any]:
    assert result.exit_code in (0, 1), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def text_of(server: Server, prompt: str, tokens: int) -> str:
    """What transformers' own greedy search continues a prompt with."""
    ids = server.tokenizer(prompt)["input_ids"]
    new = tiny_models.greedy_ids(server.model, ids, tokens)
    return str(server.tokenizer.decode(new, skip_special_tokens=True))


def test_a_text_is_streamed_and_is_the_models(server: Server) -> None:
    result = generate(server, "One, two", "-n", "9", "--greedy")
    assert result.exit_code == 0, result.output
    body = server.requests[-1][1]
    assert body["stream"] and body["temperature"] == 0 and body["max_tokens"] == 9
    assert server.requests[-1][2] == f"Bearer {KEY}"
    # Byte by byte a server decodes other characters than at once.
    ids = server.tokenizer("One, two")["input_ids"]
    new = tiny_models.greedy_ids(server.model, ids, 9)
    pieces = [server.tokenizer.decode([i], skip_special_tokens=True) for i in new]
    assert result.stdout == "".join(pieces) + "\n"


def test_a_record(server: Server) -> None:
    (record,) = records(generate(server, "ab", "-n", "4", "--seed", "7", "--format", "jsonl"))
    assert "stream" not in server.requests[-1][1] and server.requests[-1][1]["seed"] == 7
    assert record["usage"] == {"prompt_tokens": 2, "completion_tokens": 4}
    assert (record["prompt"], record["seed"], record["finish_reason"]) == ("ab", 7, "length")
    again = records(generate(server, "ab", "-n", "4", "--seed", "7", "--format", "jsonl"))
    assert again[0]["text"] == record["text"]


def test_a_drawn_seed_repeats_the_text(server: Server) -> None:
    (record,) = records(generate(server, "ab", "-n", "8", "--format", "jsonl"))
    arguments = ("ab", "-n", "8", "--format", "jsonl", "--seed", str(record["seed"]))
    assert records(generate(server, *arguments))[0]["text"] == record["text"]


def test_sampling_options_are_sent_by_the_servers_names(server: Server) -> None:
    options = [*("--temperature", "0.5", "--top-k", "3", "--min-p", "0.1", "--stop", "x")]
    generate(server, "ab", *options, "--repetition-penalty", "1.2", "--keep-special")
    body = server.requests[-1][1]
    expected = {"temperature": 0.5, "top_k": 3, "min_p": 0.1, "stop": ["x"]}
    expected |= {"repetition_penalty": 1.2, "skip_special_tokens": False, "max_tokens": 256}
    assert expected.items() <= body.items()


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--typical-p", "0.5"], "does not know --typical-p"),
        (["--num-beams", "2"], "does not know --num-beams"),
        (["--prompt-lookup", "2"], "does not know --prompt-lookup"),
        (["--dtype", "bf16"], "--dtype does not work with an endpoint"),
        (["--chat", "--think"], "no switch for --think"),
        (["--chat", "--template", "x"], "does not know --template"),
    ],
)
def test_what_the_server_does_not_know_is_refused(
    arguments: list[str], cause: str, server: Server
) -> None:
    result = generate(server, "ab", *arguments)
    assert result.exit_code in (1, 2) and cause in result.stderr
    assert server.requests == []


def test_constraints_are_sent_as_the_server_knows_them(server: Server) -> None:
    arguments = ("ab", "-n", "3", "--greedy", "--format", "jsonl")
    result = generate(server, *arguments, "--choice", "yes", "--choice", "no")
    assert server.requests[-1][1]["structured_outputs"] == {"choice": ["yes", "no"]}
    assert records(result)[0]["valid"] is False  # this server keeps to nothing
    assert result.exit_code == 1
    generate(server, *arguments, "--regex", "[0-9]+")
    assert server.requests[-1][1]["structured_outputs"] == {"regex": "[0-9]+"}
    server.fields = dict.fromkeys(server.fields, ("max_tokens", "temperature"))
    assert "does not know --regex" in generate(server, *arguments, "--regex", "a").stderr
    server.fields = {}
    generate(server, *arguments, "--chat", "--schema", '{"type": "object"}')
    form = server.requests[-1][1]["response_format"]
    assert form["json_schema"]["schema"] == {"type": "object"}


def test_a_server_without_a_schema_gets_openais_fields(server: Server) -> None:
    server.fields = {}
    assert generate(server, "ab", "-n", "2", "--seed", "1").exit_code == 0
    assert server.requests[-1][1]["seed"] == 1
    assert "does not know --top-k" in generate(server, "ab", "--top-k", "2").stderr


def test_chats(server: Server, tmp_path: Path) -> None:
    result = generate(server, "-s", "Be brief.", "Hello", "-n", "3", "--greedy")
    assert result.exit_code == 0, result.output
    path, body, _ = server.requests[-1]
    assert path == "/v1/chat/completions"
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    calls = [{"function": {"name": "f", "arguments": {"x": 1}}}]
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "content": "b"},
        {"role": "assistant", "content": "The"},
    ]
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(messages))
    server.faults.append("strange")
    generate(server, "--messages", str(file))
    body = server.requests[-1][1]
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'
    assert body["continue_final_message"] and body["add_generation_prompt"] is False


def test_logprobs_are_those_of_the_model(server: Server, tiny: Path) -> None:
    arguments = ["ab", "-n", "4", "--greedy", "--top-logprobs", "2", "--format", "jsonl"]
    (theirs,) = records(generate(server, *arguments))
    (ours,) = records(run("generate", "-m", str(tiny), "--dtype", "float32", *arguments))
    for a, b in zip(theirs["logprobs"], ours["logprobs"], strict=True):
        assert a["id"] is None and a["logprob"] == pytest.approx(b["logprob"], abs=1e-5)
        top = [each["logprob"] for each in b["top"]]
        assert [each["logprob"] for each in a["top"]] == pytest.approx(top, abs=1e-5)
    (chat,) = records(generate(server, "--chat", *arguments))
    assert len(chat["logprobs"]) == 4 and len(chat["logprobs"][0]["top"]) == 2


def test_a_batch_keeps_order_ids_and_errors(server: Server) -> None:
    lines = [{"id": i, "prompt": "ab" * (9 - i), "max_new_tokens": 9 - i} for i in range(9)]
    batch = [json.dumps(line) for line in lines]
    batch[4] = "{"
    batch[5] = json.dumps({"id": 5, "prompt": "a", "typical_p": 0.4})
    result = generate(
        server, "--batch", "-", "--greedy", "--concurrency", "3", stdin="\n".join(batch)
    )
    found = records(result)
    assert result.exit_code == 1
    assert [record.get("id") for record in found] == [0, 1, 2, 3, None, 5, 6, 7, 8]
    assert "not valid JSON" in found[4]["error"] and "--typical-p" in found[5]["error"]
    assert found[0]["text"] == text_of(server, "ab" * 9, 9) or "\ufffd" in found[0]["text"]


def test_a_batch_resumes(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    batch = tmp_path / "in.jsonl"
    batch.write_text('{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}\n')
    arguments = ("--batch", str(batch), "-o", str(output), "--seed", "1", "-n", "2")
    server.faults += ["", "401", ""]
    assert generate(server, *arguments, "--concurrency", "1").exit_code == 1
    batch.write_text(batch.read_text() + '{"prompt": "d"}\n')
    before = len(server.requests)
    generate(server, *arguments, "--resume")
    assert len(server.requests) == before + 1 and server.requests[-1][1]["prompt"] == "d"
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record.get("prompt") for record in found] == ["a", None, "c", "d"]
    assert "401" in found[1]["error"] and KEY not in output.read_text()
    other = ("--seed", "2", "--resume")
    assert "--seed was 1 and is 2" in generate(server, *arguments[:4], *other, "-n", "2").stderr


@pytest.mark.parametrize("fault", ["429", "500", "503", "drop", "short"])
def test_what_may_pass_is_tried_again(fault: str, server: Server) -> None:
    server.faults += [fault, fault]
    (record,) = records(generate(server, "ab", "-n", "2", "--greedy", "--format", "jsonl"))
    assert record["usage"]["completion_tokens"] == 2 and len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("429", "answered 429"),
        ("400", "answered 400 Bad Request: no, with Bearer ***"),
        ("redirect", "answered 307"),
        ("html", "a web page instead of JSON"),
        ("invalid", "broken JSON: '{\"choices\": ['"),
        ("bytes", "something else than UTF-8"),
        ("strange", "not one of OpenAI's API"),
        ("short", "broke off"),
        ("drop", "broke off"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_faults(fault: str, cause: str, streamed: bool, server: Server) -> None:
    server.faults += [fault] * 4
    arguments = [] if streamed else ["--format", "jsonl"]
    result = generate(server, "ab", "-n", "8", *arguments)
    assert result.exit_code == 1 and cause in result.stderr, result.stderr
    assert KEY not in result.output and "\x1b" not in result.output
    assert result.stderr.count("\nError: ") <= 1 and result.stdout == ""


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("cut", "broke off"),
        ("no reason", "ends before the text"),
        ("error", "out of memory"),
    ],
)
def test_a_stream_that_ends_early_is_an_error(fault: str, cause: str, server: Server) -> None:
    server.faults.append(fault)
    result = generate(server, "ab", "-n", "8", "--greedy")
    assert result.exit_code == 1 and cause in result.stderr and result.stdout
    assert len(server.requests) == 1


def test_a_server_that_hangs(server: Server) -> None:
    server.faults.append("hang")
    result = generate(server, "ab", "--timeout", "0.2")
    assert result.exit_code == 1 and "sent nothing for 0.2 seconds" in result.stderr


def test_addresses(server: Server) -> None:
    url = server.address.partition("#")[0]
    assert run("generate", "-m", url, "ab", "-n", "1").exit_code == 0  # it has one model
    assert run("models", "alias", "far", server.address).exit_code == 0
    assert run("generate", "-m", "far", "ab", "-n", "1").exit_code == 0
    nobody = run("generate", "-m", "http://127.0.0.1:9/v1#x", "ab")
    assert nobody.exit_code == 1 and "cannot reach 127.0.0.1:9" in nobody.stderr
    password = run("generate", "-m", url.replace("//", "//me:secret12@"), "ab")
    assert password.exit_code == 2 and "secret12" not in password.output
    files = run("encode", "-m", server.address, "ab")
    assert files.exit_code == 1 and "an endpoint has none" in files.stderr


def test_no_torch_and_no_key_in_the_list_of_processes(server: Server) -> None:
    code = (
        "import sys; from hftool.cli.app import app\n"
        "for command in ('generate', 'topk', 'sample'):\n"
        "    app([command, '-m', sys.argv[1], 'ab'], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, server.address]).returncode == 0
    finished = run_process(
        "generate", "-m", server.address, "ab", "-n", "2", "--api-key", "my-own-key"
    )
    assert finished.status == 0 and server.requests[-1][2] == "Bearer my-own-key"


def test_results_do_not_wait_for_the_next_item() -> None:
    more = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert more.wait(20)
        yield 2
        raise HftoolError("broken")

    results = in_order(lambda item: item * 10, items(), 4)
    assert next(results) == 10  # although the second item is not there yet
    more.set()
    assert next(results) == 20
    with pytest.raises(HftoolError, match="broken"):
        next(results)
