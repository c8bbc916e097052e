"""Chat in a loop that encodes the whole history again for each turn."""

import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer: Any = AutoTokenizer.from_pretrained(sys.argv[1])
model: Any = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
messages: list[dict[str, str]] = []
for line in sys.stdin:
    messages.append({"role": "user", "content": line.rstrip("\n")})
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=int(sys.argv[2]), do_sample=False)
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    messages.append({"role": "assistant", "content": answer})
    print(answer)
