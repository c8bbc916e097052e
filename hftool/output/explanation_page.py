"""An HTML page that plays how the tokens of a text came about, step by step."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from hftool.terminal import visible

if TYPE_CHECKING:
    from hftool.tokenization.explain import ExplainedPart, Explanation

PAGE = """\
<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>hftool</title>
<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
#tokens { font: 17px/2.2 ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace;
  white-space: pre-wrap; min-height: 8em }
#tokens span { border-radius: 3px; padding: .2em .15em; margin-right: .25em;
  background: rgb(0 160 190 / .25) }
#tokens span.new { background: rgb(220 170 0 / .6) }
#tokens b { margin-right: .6em }
#tokens small { margin-left: .4em; opacity: .7 }
</style>
</head>
<body>
<p><button id="back">Back</button> <button id="play">Play</button>
<button id="next">Next</button> <span id="place"></span></p>
<p id="title"></p>
<div id="tokens" dir="auto"></div>
<script>
const frames = FRAMES;
let at = 0, timer = null;
const find = id => document.getElementById(id);
function show() {
  const frame = frames[at];
  find("place").textContent = `${at + 1} of ${frames.length}`;
  find("title").textContent = frame.title;
  find("tokens").replaceChildren(...frame.parts.flatMap(part => [...part.map(token => {
    const span = document.createElement("span");
    span.textContent = token[0];
    if (token[1]) span.className = "new";
    if (token[2] !== undefined) {
      const id = document.createElement("small");
      id.textContent = token[2];
      span.append(id);
    }
    return span;
  }), document.createElement("b")]));
}
function go(by) { at = Math.max(0, Math.min(frames.length - 1, at + by)); show(); }
function stop() { clearInterval(timer); timer = null; find("play").textContent = "Play"; }
find("back").onclick = () => { stop(); go(-1); };
find("next").onclick = () => { stop(); go(1); };
find("play").onclick = () => {
  if (timer) return stop();
  if (at === frames.length - 1) at = -1;
  find("play").textContent = "Pause";
  go(1);
  timer = setInterval(() => at < frames.length - 1 ? go(1) : stop(), 900);
};
show();
</script>
</body>
</html>
"""

Frame = dict[str, object]
Shown = list[tuple[str, bool] | tuple[str, bool, int]]
"""The tokens of a part, whether the step has made each, and at the end its id."""


def explanation_page(records: Iterable["Explanation"]) -> str:
    """Return a page whose frames are the text, the normalized text, its parts, and each step."""
    frames = [frame for record in records for frame in _frames(record)]
    content = json.dumps(frames, ensure_ascii=False).replace("<", "\\u003c")
    return PAGE.replace("FRAMES", content)


def _frames(record: "Explanation") -> Iterator[Frame]:
    yield _frame("The text", [[(record.text, False)]])
    yield _frame("After the normalizer", [[(record.normalized, False)]])
    parts: list[Shown] = [[(part.text, False)] for part in record.parts]
    yield _frame("After the splitter", parts)
    for i, part in enumerate(record.parts):
        for title, shown in _steps(part):
            parts[i] = shown
            yield _frame(f"{record.model}: {title}", parts)
        parts[i] = [(token, False) for token in part.tokens]
    final = (zip(part.tokens, part.ids, strict=True) for part in record.parts)
    yield _frame("The tokens", [[(token, False, i) for token, i in part] for part in final])


def _steps(part: "ExplainedPart") -> Iterator[tuple[str, Shown]]:
    if part.steps and part.start:
        yield "the symbols of a part", [(symbol, False) for symbol in part.start]
    made: Shown = []
    for step in part.steps:
        if step.tokens is not None:  # a merge
            title = f"merge {step.rank}: {step.left} + {step.right}"
            yield title, [(token, token == step.token) for token in step.tokens]
            continue
        made.append((step.token, True))
        rest = [(step.rest, False)] if step.rest else []
        score = "" if step.score is None else f", score {step.score:.4g}"
        yield f"{step.token}{score}", [*made, *rest]


def _frame(title: str, parts: list[Shown]) -> Frame:
    return {
        "title": visible(title),
        "parts": [[(visible(token), *marks) for token, *marks in part] for part in parts],
    }
