"""Print the ten most probable next tokens."""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
inputs = tokenizer(sys.argv[2], return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
probs = torch.softmax(logits[0, -1].float(), dim=-1)
top = torch.topk(probs, 10)
for prob, token in zip(top.values, top.indices, strict=True):
    print(int(token), repr(tokenizer.decode(token)), float(prob))
