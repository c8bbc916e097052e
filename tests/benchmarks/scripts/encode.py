"""Print the token ids of a text."""

import sys

from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print(tokenizer.encode(sys.argv[2], add_special_tokens=False))
