"""Sample token by token, computing the whole prompt again for each."""

import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer: Any = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
prompt = sys.argv[2]
for _ in range(int(sys.argv[3])):
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    probs = torch.softmax(logits[0, -1].float(), dim=-1)
    token = tokenizer.decode(torch.multinomial(probs, 1))
    prompt += token
    print(prompt, repr(token))
