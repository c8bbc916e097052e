#!/usr/bin/env bash
# A walk through the commands, on the two models that need no model hub. `make demo` runs it.
set -euo pipefail

step() { printf '\n# %s\n' "$1"; }

# Show a command line as a user types it, then run it.
run() {
    printf '$ %s\n' "$1"
    bash -o pipefail -c "$1"
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
printf 'The sky is\nOne, two,\n' > prompts.txt

step 'Two models are converted once; from then on they load fast'
run 'hftool models pull smollm2'
run 'hftool models pull minilm-sst2'

step 'The vocabulary: line ID+1 has token ID'
run 'hftool vocab-dump smollm2 > tokens.txt; wc -l < tokens.txt'
run 'sed -n "261,265p" tokens.txt'

step 'Text to tokens: " good" with its space and "good" are different tokens'
run 'hftool encode "大家好"'
run 'hftool encode "大家好" | hftool decode'
run 'hftool encode "good morning" --format table'
run 'hftool encode "i am good" --format table'

step 'The most probable next tokens'
run 'hftool topk "1+1=" --format table'
run 'hftool topk "The capital of France is" -k 5 --format table'

step 'Token by token: each step and its candidates'
run 'hftool sample "Once upon a time" --steps 3 --seed 7 --temperature 1 --top-p 1 --format table'

step 'Several tokens ahead: each token and each path with its probability'
run 'hftool tree "The capital of France is" --depth 2 --branch 2 --format table'

step 'How much each token of a text surprises the model'
run 'hftool score "The capital of France is Banana." --by token --format table'

step 'Generate'
run 'hftool generate "Once upon a time" --max-new-tokens 40 --seed 7'
run 'while read -r p; do hftool generate "$p" -n 8 --greedy; done < prompts.txt'

step 'The chat template, and an answer'
run 'hftool generate --chat "What is the capital of France?" --greedy'

step 'Chat'
run "printf 'What is the capital of France?\nAnd of Italy?\n' | hftool chat --greedy"

step 'Sentiment'
run 'hftool sentiment "I love programming!"'
run "printf 'I love it\n\nI hate it\n' | hftool sentiment --format jsonl"

printf '\n# Now you. In the folder of this repository:\n. .venv/bin/activate\nhftool tour\n'
