"""Print every token of the vocabulary, one per line."""

import sys

from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
for i in range(tokenizer.vocab_size):
    print(f"<{i}:{tokenizer.decode(i)}")
