"""An HTML page of next-token probabilities that sliders change."""

import json
from collections.abc import Iterable
from typing import Any

from hftool.generation.records import Distribution
from hftool.output.tables.base import shown
from hftool.terminal import one_line, visible

PAGE = """\
<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>hftool topk</title>
<style>
:root { color-scheme: light dark; --bar: rgb(60 170 60 / .55); --line: rgb(128 128 128 / .4) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
.prompt, td, output { font: 15px/1.5 ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace }
.prompt { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 12em; overflow: auto }
form { position: sticky; top: 0; background: Canvas; padding: .6em 0; display: grid; gap: .2em 1em;
  grid-template-columns: max-content 1fr 4.5em; align-items: center;
  border-bottom: 1px solid var(--line) }
input { width: 100%; margin: 0 }
output, .n { text-align: right }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
td { padding: 0 .4em; white-space: pre; overflow: hidden; text-overflow: ellipsis }
td:nth-child(1) { width: 3.5em } td:nth-child(2) { width: 9em }
td:nth-child(3), td:nth-child(4) { width: 4.5em }
td:nth-child(-n+1), td:nth-child(3) { color: GrayText }
.token { font-weight: bold }
tr.out { opacity: .45 } tr.out .token { text-decoration: line-through }
td i { display: block; height: 1.05em; background: var(--bar); border-radius: 2px }
p { color: GrayText; margin: .5em 0 }
button { font: inherit }
#options { grid-column: 2 / 4; color: GrayText; font: 13px/1.4 ui-monospace, monospace }
@media (max-width: 36em) {
  td:nth-child(3) { display: none } td:nth-child(2) { width: 7em } }
</style>
</head>
<body>
<form>
<label for="temperature">temperature</label>
<input type="range" id="temperature" min="0" max="2" step="0.05"><output></output>
<label for="top-k">top-k</label>
<input type="range" id="top-k" min="0" max="300" step="1"><output></output>
<label for="top-p">top-p</label>
<input type="range" id="top-p" min="0" max="1" step="0.01"><output></output>
<label for="min-p">min-p</label>
<input type="range" id="min-p" min="0" max="0.5" step="0.01"><output></output>
<button type="button" id="reset">Reset</button><span id="options"></span>
</form>
<main></main>
<script>
// Each distribution has its best tokens with their log-probabilities, and for each temperature of
// the slider the logarithm of the sum over all other tokens of exp(logprob / temperature).
const distributions = DISTRIBUTIONS;
const names = ["temperature", "top-k", "top-p", "min-p"];
const off = [1, 0, 1, 0];
const find = id => document.getElementById(id);
const made = (tag, content, className) => {
  const element = document.createElement(tag);
  element.textContent = content;
  if (className) element.className = className;
  return element;
};

// The probabilities of the tokens after the filters, in the order in which hftool applies them;
// the last one is that of all other tokens together.
function filtered(d, temperature, topK, topP, minP) {
  const best = d.logprobs[0];
  if (temperature === 0) return [...d.logprobs.map((_, i) => i ? 0 : 1), 0];
  const weights = d.logprobs.map(logprob => Math.exp((logprob - best) / temperature));
  const step = Math.round(temperature / 0.05) - 1;
  let rest = d.others ? Math.exp(d.rest[step] - best / temperature) : 0;
  const sum = () => weights.reduce((a, b) => a + b, 0) + rest;
  if (topK > 0) {
    const last = weights[Math.min(topK, weights.length) - 1];
    weights.forEach((weight, i) => { if (weight < last) weights[i] = 0; });
    rest = 0;
  }
  if (topP < 1) {
    const wanted = topP * sum();
    let before = 0;
    weights.forEach((weight, i) => {
      if (i && before >= wanted) weights[i] = 0;
      before += weight;
    });
    rest = Math.max(0, Math.min(rest, wanted - before));
  }
  if (minP > 0) {
    weights.forEach((weight, i) => { if (weight < minP) weights[i] = 0; });
    const least = Math.exp((d.logprobs[d.logprobs.length - 1] - best) / temperature);
    if (least < minP) rest = 0;
  }
  const total = sum();
  return [...weights, rest].map(weight => weight / total);
}

function table(d, values) {
  const probs = filtered(d, ...values);
  const rows = d.tokens.slice(0, SHOWN).map((token, i) => {
    const row = document.createElement("tr");
    row.dataset.id = d.ids[i];
    row.dataset.prob = probs[i];
    if (probs[i] === 0) row.className = "out";
    const bar = document.createElement("i");
    bar.style.width = `${100 * probs[i]}%`;
    const cell = document.createElement("td");
    cell.append(bar);
    row.append(made("td", i + 1, "n"), made("td", token, "token"),
      made("td", Math.exp(d.logprobs[i]).toFixed(4), "n"),
      made("td", probs[i] ? probs[i].toFixed(4) : "×", "n"), cell);
    return row;
  });
  const head = document.createElement("tr");
  head.append(...["rank", "token", "model", "drawn", ""].map(name => made("td", name)));
  const body = document.createElement("table");
  body.append(head, ...rows);
  const hidden = probs.slice(SHOWN).reduce((a, b) => a + b, 0);
  const kept = probs.slice(0, -1).filter(prob => prob > 0).length;
  let entropy = probs.slice(0, -1).reduce((a, p) => p ? a - p * Math.log2(p) : a, 0);
  let note = `${kept} token${kept === 1 ? "" : "s"} kept`;
  if (values.join() === off.join()) {
    entropy = d.entropy;
    note = `all ${d.ids.length + d.others} tokens kept`;
  } else if (probs[probs.length - 1]) {
    entropy = null; // of the tokens that are not listed, only the sum is known
    note = `more than ${kept} tokens kept`;
  }
  if (entropy !== null) note += `, entropy ${entropy.toFixed(2)} bits`;
  const below = hidden ? `; below these ${(100 * hidden).toFixed(2)} %` : "";
  const section = document.createElement("section");
  section.append(made("div", d.prompt, "prompt"), body, made("p", note + below));
  if (d.title) section.prepend(made("p", d.title));
  return section;
}

function show() {
  const values = names.map(name => Number(find(name).value));
  names.forEach((name, i) =>
    find(name).nextElementSibling.textContent = i && values[i] === off[i] ? "off" : values[i]);
  find("options").textContent = names.map((name, i) => `--${name} ${values[i]}`).join(" ");
  document.querySelector("main").replaceChildren(...distributions.map(d => table(d, values)));
}
function set(values) { names.forEach((name, i) => find(name).value = values[i]); show(); }
const start = distributions[0].settings;
const given = new URLSearchParams(location.hash.slice(1));
document.querySelector("form").oninput = show;
find("reset").onclick = () => set(off);
set(names.map((name, i) => given.get(name) ?? start[i]));
</script>
</body>
</html>
"""
SHOWN = 40  # tokens
NEVER = -1e6  # in the place of the logarithm of 0, which JSON does not have


def slider_page(records: Iterable[Any]) -> str:
    """Return a page with a table for each distribution, and sliders for the four filters that most
    programs have. A fragment such as `#temperature=0.5&top-k=3` sets them."""
    contents = [_content(record) for record in records if isinstance(record, Distribution)]
    content = json.dumps(contents, ensure_ascii=False).replace("<", "\\u003c")
    return PAGE.replace("SHOWN", str(SHOWN)).replace("DISTRIBUTIONS", content)


def _content(d: Distribution) -> dict[str, object]:
    mask = "" if d.mask is None else f"mask at position {d.position}"
    return {
        "title": " ".join(filter(None, (one_line(d.model or ""), mask))),
        "prompt": visible(d.prompt),
        "ids": d.ids,
        "tokens": [shown(token) for token in d.tokens],
        "logprobs": [_number(logprob) for logprob in d.logprobs],
        "others": d.others,
        "rest": [_number(rest) for rest in d.rest],
        "entropy": d.entropy,
        "settings": d.settings,
    }


def _number(value: float) -> float:
    return round(max(value, NEVER), 6)
