"""Generate a text with `model.generate`."""

import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model: Any = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
inputs = tokenizer(sys.argv[2], return_tensors="pt")
with torch.no_grad():
    output = model.generate(
        **inputs, max_new_tokens=int(sys.argv[3]), do_sample=True, top_k=3,
        pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
print(tokenizer.decode(output[0], skip_special_tokens=True))
