"""An endpoint for the tests: a real HTTP server in vLLM's format around a tiny model, which can be
told to misbehave."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from tests import tiny_models

KEY = "sk-secret-of-somebody"
# Of vLLM's CompletionRequest and ChatCompletionRequest.
COMMON = (
    *("model", "frequency_penalty", "presence_penalty", "logprobs", "max_tokens", "seed", "stop"),
    *("stream", "stream_options", "temperature", "top_p", "top_k", "min_p", "ignore_eos"),
    *("repetition_penalty", "min_tokens", "skip_special_tokens", "response_format"),
    *("structured_outputs", "add_special_tokens", "n"),
)
FIELDS = {
    "/v1/completions": (*COMMON, "prompt", "echo"),
    "/v1/chat/completions": (
        *(*COMMON, "messages", "top_logprobs", "chat_template", "chat_template_kwargs"),
        *("continue_final_message", "add_generation_prompt", "documents"),
    ),
}


@dataclass
class Server:
    """A running endpoint.

    Attributes:
        address: what `-m` takes.
        shifted: give the log-probabilities of a prompt after its first token, as llama-cpp-python.
        fields: of the requests to each path: their names, or their schemas by name.
        logprobs: what the next answers have instead of the log-probabilities of "a" and "b".
        owner: what the list of models says of who owns them.
        faults: what goes wrong with the next requests for text, in turn: a key of `FAULTS`.
        requests: the path, the body and the key of each request for text.
    """

    address: str
    model: Any
    tokenizer: Any
    faults: list[str] = field(default_factory=list)
    requests: list[tuple[str, Any, str | None]] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=lambda: dict(FIELDS))
    owner: str = "vllm"
    logprobs: list[Any] = field(default_factory=list)
    shifted: bool = False
    most_at_once: int = 0
    _now: int = 0

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request for a text, with all its tokens."""
        if path.endswith("/chat/completions"):
            ids = self.tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        else:
            ids = self.tokenizer(body["prompt"])["input_ids"]
        prompt, rows = list(ids), []
        torch.manual_seed(body.get("seed") or 0)
        for _ in range(body.get("max_tokens", 16)):
            logits = tiny_models.all_logits(self.model, ids)[-1]
            rows.append(torch.log_softmax(logits.double(), dim=-1))
            if body.get("temperature") == 0:
                ids = [*ids, int(logits.argmax())]
            else:
                ids = [*ids, int(torch.multinomial(torch.softmax(logits, dim=-1), 1))]
            if ids[-1] == tiny_models.END:
                break
        new = ids[len(prompt) :]
        if body.get("echo"):
            before = tiny_models.all_logits(self.model, prompt)[:-1].double()
            before = before[:1].expand_as(before) if self.shifted else before
            rows = [None, *torch.log_softmax(before, dim=-1), *rows]  # type: ignore[list-item]
        ended = bool(new) and new[-1] == tiny_models.END
        shown = ids if body.get("echo") else new
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop" if ended else "length",
            "tokens": [self.tokenizer.decode([i], skip_special_tokens=True) for i in shown],
        }
        if body.get("logprobs") is not None and body["logprobs"] is not False:
            top = body.get("top_logprobs", body["logprobs"])
            choice["logprobs"] = self._logprobs(shown, rows, int(top), "chat" in path)
        if self.logprobs:
            given = self.logprobs.pop()
            top = {"a": given[0], "b": given[1]} if given and given[0] is not None else None
            lists = {"tokens": ["a"], "token_logprobs": given and given[:1], "top_logprobs": [top]}
            choice["logprobs"] = given and lists
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(new)}
        return {"model": body["model"], "choices": [choice], "usage": usage}

    def _name(self, token_id: int) -> str:
        text = str(self.tokenizer.decode([token_id]))
        return f"bytes:{token_id}" if "\ufffd" in text else text

    def _logprobs(self, ids: list[int], rows: Any, top: int, chat: bool) -> dict[str, Any]:
        names = [self._name(i) for i in ids]
        chosen = [None if row is None else float(row[i]) for i, row in zip(ids, rows, strict=True)]
        best = [
            None
            if row is None
            else {self._name(int(i)): float(row[i]) for i in row.topk(top).indices}
            for row in rows
        ]
        if not chat:
            starts = [len("".join(names[:i])) for i in range(len(names))]
            lists = {"tokens": names, "token_logprobs": chosen, "top_logprobs": best}
            return {**lists, "text_offset": starts}
        content = [
            {
                "token": name,
                "logprob": logprob,
                "top_logprobs": [{"token": t, "logprob": p} for t, p in (tops or {}).items()],
            }
            for name, logprob, tops in zip(names, chosen, best, strict=True)
        ]
        return {"content": content}


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def send(
            self, status: int, body: bytes, *, kind: str = "application/json", **more: str
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            for name, value in {"Content_Length": str(len(body)), **more}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                listed = [{"id": "tiny", "object": "model", "owned_by": server.owner}]
                self.send(200, json.dumps({"object": "list", "data": listed}).encode())
            elif self.path == "/openapi.json" and server.fields:
                schemas: dict[str, Any] = {
                    path: {
                        "properties": names if isinstance(names, dict) else {n: {} for n in names}
                    }
                    for path, names in server.fields.items()
                }
                names = {path: path.strip("/").replace("/", ".") for path in schemas}
                paths = {
                    path: {"post": {"requestBody": {"content": {"application/json": {
                        "schema": {"$ref": f"#/components/schemas/{names[path]}"}}}}}}
                    for path in schemas
                }  # fmt: skip
                named = {names[path]: schema for path, schema in schemas.items()}
                text = json.dumps({"paths": paths, "components": {"schemas": named}})
                self.send(200, text.encode())
            else:
                self.send(404, b'{"detail": "Not Found"}')

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append((self.path, body, self.headers["Authorization"]))
            fault = server.faults.pop(0) if server.faults else ""
            if fault and self.fault(fault, body):
                return
            server._now += 1
            server.most_at_once = max(server.most_at_once, server._now)
            answer = server.answer(self.path, body)
            server._now -= 1
            if body.get("stream"):
                self.stream(answer, fault)
                return
            text = "".join(answer["choices"][0].pop("tokens"))
            chat = self.path.endswith("/chat/completions")
            said: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
            answer["choices"][0] |= said if chat else {"text": text}
            self.send(200, json.dumps(answer).encode())

        def stream(self, answer: dict[str, Any], fault: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            tokens = answer["choices"][0]["tokens"]
            reason = answer["choices"][0]["finish_reason"]
            chat = self.path.endswith("/chat/completions")
            self.chunk(b": a comment, and an event without a text\r\n\r\n")
            self.chunk(b'data: {"choices": []}\n\n')
            for number, token in enumerate(tokens):
                if fault == "cut" and number == 3:
                    self.close_connection = True
                    return
                last = number == len(tokens) - 1 and fault != "no reason"
                said = {"delta": {"content": token}} if chat else {"text": token}
                choice = {"index": 0, **said, "finish_reason": reason if last else None}
                data = f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
                self.chunk(data[:7])
                self.chunk(data[7:])
                if fault == "error" and number == 3:
                    self.chunk(b'data: {"error": {"message": "out of memory"}}\n\n')
            usage = json.dumps({"choices": [], "usage": answer["usage"]})
            self.chunk(f"data: {usage}\n\ndata: [DONE]\n\n".encode())
            self.chunk(b"")

        def chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        def fault(self, name: str, body: dict[str, Any]) -> bool:
            """Answer wrongly; return False where the request is answered as well."""
            key = self.headers["Authorization"] or ""
            if name.isdecimal():
                said = json.dumps({"error": {"message": f"no, with {key}\x1b[2J"}})
                self.send(int(name), said.encode(), Retry_After="0")
            elif name == "redirect":
                self.send(307, b"", Location="http://127.0.0.1:9/v1/completions")
            elif name == "html":
                self.send(200, b"<html>Sign in</html>", kind="text/html")
            elif name == "invalid":
                self.send(200, b'{"choices": [')
            elif name == "bytes":
                self.send(200, b'{"choices": [{"text": "caf\xe9"}]}')
            elif name == "strange":
                self.send(200, b'{"choices": [{"text": 5, "finish_reason": "stop"}]}')
            elif name == "hang":
                time.sleep(1)
            elif name == "short":  # fewer bytes than promised
                self.send(200, b'{"cho', Content_Length="500")
                self.close_connection = True
            elif name == "drop":
                self.close_connection = True
                self.connection.close()
            else:
                return False
            return True

    return Handler


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Run an endpoint around the model in a folder."""
    model = tiny_models.transformers_model(folder)
    server = Server("", model, tiny_models.transformers_tokenizer(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(server)) as http:
        http.daemon_threads = True
        server.address = f"http://127.0.0.1:{http.server_address[1]}/v1#tiny"
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        http.shutdown()
