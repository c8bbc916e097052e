#!/usr/bin/env bash
# The tutorial's steps in the shell, on the two models that need no hub. Run by `make demo`.
set -euo pipefail

step() { printf '\n# %s\n' "$1"; }

# Show a command line as a user types it, then what it answers.
run() {
    printf '$ %s\n' "$1"
    bash -o pipefail -c "$1"
}

workplace=$(mktemp -d)
trap 'rm -rf "$workplace"' EXIT
cd "$workplace"
printf 'The sky is\nOne, two,\n' > prompts.txt

step 'Load: two models are prepared once, and load fast from then on'
run 'hftool models pull smollm2'
run 'hftool models pull minilm-sst2'

step 'Look at the vocabulary: line ID+1 holds token ID'
run 'hftool vocab-dump smollm2 > tokens.txt; wc -l < tokens.txt'
run 'sed -n "261,265p" tokens.txt'

step 'Text to tokens: " good" with its space is another token than "good"'
run 'hftool encode "大家好"'
run 'hftool encode "大家好" | hftool decode'
run 'hftool encode "good morning" --format table'
run 'hftool encode "i am good" --format table'

step 'What the model expects next'
run 'hftool topk "1+1=" --format table'
run 'hftool topk "The capital of France is" -k 5 --format table'

step 'Token by token: each step, and what it chose from'
run 'hftool sample "你是谁" --steps 3 --seed 7 --format table'

step 'Generate'
run 'hftool generate "Once upon a time" --max-new-tokens 40 --seed 7'
run 'while read -r p; do hftool generate "$p" -n 8 --greedy; done < prompts.txt'

step 'The chat template, and an answer'
run 'hftool generate --chat "What is the capital of France?" --greedy'

step 'Chat'
run "printf 'My name is Ada.\nWhat is my name?\n' | hftool chat --greedy"

step 'Sentiment'
run 'hftool sentiment "I love programming!"'
run "printf 'I love it\n\nI hate it\n' | hftool sentiment --format jsonl"
