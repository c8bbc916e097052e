r"""Let the teacher of the sentiment adapter judge the texts to train on.

    python training/judge_texts.py --data SST2_FOLDER --ratings RATINGS_FOLDER \
        --teacher TEACHER_FOLDER > judged.tsv

The texts are the phrases and sentences of the treebank (without dev's and the held-out tenth's),
product reviews, newspaper sentences and tweets that people rated from -4 to 4 (Hutto and Gilbert
2014, https://doi.org/10.1609/icwsm.v8i1.14550), and more that join two to four of
them, so that contrasts ("…, but …") and longer texts come up.

RATINGS_FOLDER is what `hutto_ICWSM_2014.tar.gz` contains, in the source package of vaderSentiment
3.2.1. Its film reviews are left out: dev's sentences are among them.

Each line of the output is text TAB label TAB margin: the label is 0, 1 or -1 (none), the margin by
how much the logit of POSITIVE should exceed that of NEGATIVE: the teacher's (in bfloat16), or in a
text that people rated three times their mean rating.
"""

import argparse
import html
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from train_sentiment import (
    Example,
    detokenized,
    encoder_of,
    held_out,
    read,
    tensors,
    without,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer

NO_LABEL = -1
RATED = ("amazonReviewSnippets", "nytEditorialSnippets", "tweets")
MARGIN_OF_RATING = 3.0
JOINTS = (
    *("{}, but {}", "although {}, {}", "{}; {}", "{} and {}"),
    *("{}. {}", "{}. {}. {}", "{}. {}. {}. {}"),
)
BATCH = 128


def rated(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the texts that people rated, each with the margin of its mean rating."""
    for name in RATED:
        content = (folder / f"{name}_GroundTruth.txt").read_text(encoding="utf-8", errors="replace")
        for line in content.splitlines():
            _, rating, text = line.split("\t", 2)
            yield html.unescape(text), MARGIN_OF_RATING * float(rating)


def joined(texts: list[str], count: int, rng: random.Random) -> Iterator[str]:
    """Yield `count` texts that consist of two to four others."""
    for _ in range(count):
        joint = rng.choice(JOINTS)
        parts = rng.sample(texts, joint.count("{}"))
        yield joint.format(*(part.rstrip(" .,;") for part in parts))


def texts_to_judge(data: Path, others: list[str]) -> list[Example]:
    """Return the treebank's texts with their labels, and texts without one that join them or
    others; each once."""
    rng = random.Random(0)
    dev, sentences = read(data / "dev.tsv"), read(data / "train.tsv")
    known = dict(without(read(data / "phrases.tsv") + sentences, held_out(sentences) + dev))
    phrases = [detokenized(text) for text in known if len(text.split()) > 2]
    new = dict.fromkeys(joined(phrases, len(phrases) // 8, rng))
    if others:
        new |= dict.fromkeys(joined(others, len(others) // 4, rng))
    return [*known.items(), *((text, NO_LABEL) for text in new if text not in known)]


@torch.inference_mode()
def main() -> None:
    """Judge the texts and write them to standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the TSV files")
    parser.add_argument("--ratings", type=Path, required=True, help="folder with rated texts")
    parser.add_argument("--teacher", required=True, help="folder of the teacher")
    args = parser.parse_args()

    by_people = dict(rated(args.ratings))
    for text, margin in by_people.items():
        print(" ".join(text.split()), NO_LABEL, f"{margin:.3f}", sep="\t")
    model = AutoModelForSequenceClassification.from_pretrained(args.teacher).eval()
    pairs = texts_to_judge(args.data, list(by_people))
    encode = encoder_of(AutoTokenizer.from_pretrained(args.teacher))
    encoded = encode([(detokenized(text), label) for text, label in pairs])
    ordered = sorted(range(len(pairs)), key=lambda i: len(encoded[i][0]))
    for start in range(0, len(ordered), BATCH):
        chunk = ordered[start : start + BATCH]
        ids, mask, _ = tensors([encoded[i] for i in chunk], model.config.pad_token_id)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=mask).logits.float()
        for i, margin in zip(chunk, (logits[:, 1] - logits[:, 0]).tolist(), strict=True):
            text = " ".join(pairs[i][0].split())
            print(text, int(pairs[i][1]), f"{margin:.3f}", sep="\t")
        print(f"{start + len(chunk)} of {len(pairs)} judged", file=sys.stderr)


if __name__ == "__main__":
    main()
