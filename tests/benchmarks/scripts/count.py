"""Count the tokens of each line of a file with the tokenizers library, in large batches."""

import sys
from itertools import islice

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as file:
    while batch := [line.rstrip("\n") for line in islice(file, 16_384)]:
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            print(len(encoding))
