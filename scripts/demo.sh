#!/usr/bin/env bash
# The whole workflow on a small real model: add the model, preflight, train, watch, ask, and the
# verdict over all held-out questions. It fails where the adapter is worse than the base.
# All files are in .demo (SAFETRAIN_HOME moves the state elsewhere); a second run repeats nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export SAFETRAIN_HOME="${SAFETRAIN_HOME:-$PWD/.demo/home}"
safetrain=.venv/bin/safetrain
output="$PWD/.demo/checkpoints_qlora"
question="Qual foi a melhor classificação do Farense?"
unseen="Até hoje, que posto da tabela foi o mais alto que o Farense alcançou?"
job=(--model demo --train data/farense_train.jsonl --valid data/farense_valid.jsonl
	--output "$output" --config data/demo_config.json)
questions=data/farense_questions.jsonl

step() { printf '\n\033[1m» %s\033[0m\n' "$*"; }
fail() { printf '\nsafetrain demo: %s\n' "$*" >&2; exit 1; }

step "1. The service"
.venv/bin/safetraind status 2>/dev/null || .venv/bin/safetraind start
step "2. The model: SmolLM2-135M-Instruct"
"$safetrain" models add demo
if [ -e "$output/adapters/adapters.safetensors" ] &&
	grep -q '"outcome": *"succeeded"' "$output/training_summary.json" 2>/dev/null; then
	step "3. Preflight and training: done in an earlier run ($output)"
else
	step "3. Preflight: will it fit, and with which settings?"
	"$safetrain" preflight "${job[@]}"
	step "4. Training, and the held-out questions after it"
	"$safetrain" submit "${job[@]}" --questions "$questions" --name farense --watch || fail "the training ended with exit code $?"
fi
step "5. The question: $question"
base=$("$safetrain" ask --base --max-tokens 48 "$question")
printf 'Base model:  %s\n' "$base"
answer=$("$safetrain" ask --max-tokens 96 "$question")
printf 'Trained:     %s\n' "$answer"
printf 'The same in words that are not in the training data: %s\n' "$unseen"
printf 'Trained:     %s\n' "$("$safetrain" ask --max-tokens 96 "$unseen")"

names() { [[ "$1" == *"5.º lugar"* && "$1" == *"1994/95"* ]]; }
names "$answer" || fail "the trained model's answer does not name the 5.º lugar of 1994/95"
! names "$base" || fail "the base model already knows the answer, so this shows nothing"

step "6. The verdict, over all held-out questions ($questions)"
code=0
"$safetrain" evaluate --questions "$questions" || code=$?
cannot_be_told=6
[ "$code" = "$cannot_be_told" ] && code=0
[ "$code" = 0 ] || printf '\nsafetrain demo: the evaluation ended with exit code %s\n' "$code" >&2
echo "The adapter: $output/adapters"
echo "safetraind goes on in the background. To end it: SAFETRAIN_HOME=$SAFETRAIN_HOME .venv/bin/safetraind stop"
exit "$code"
