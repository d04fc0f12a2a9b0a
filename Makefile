# One word for each thing a developer or a newcomer does. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# A module is compiled when it is first imported: most of transformers never is.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile
KILLS ?= 200
# Other machines are network namespaces behind a link of this rate, which needs root; LINK= is loopback.
LINK ?= $(if $(filter 0,$(shell id -u)),1gbit)
DEMO := SAFETRAIN_HOME=$(CURDIR)/.demo/home
# Users have it unset. With it each process compiles again all that it imports, here 0.2 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "safetrain needs Python 3.11 or later; name one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import platform, sys; sys.exit((sys.platform, platform.machine()) == ("darwin", "x86_64"))' || \
		{ echo "This Python is made for Intel, and MLX needs Apple silicon. On a Mac with an M chip it runs under" \
		"Rosetta: name a native one, as from python.org or Homebrew in /opt/homebrew: make PYTHON=/opt/homebrew/bin/python3 …"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --upgrade pip
	@touch $@

.venv/installed: .venv/created pyproject.toml
	@bash scripts/openblas.sh
	@echo "Installing safetrain and its daemon into .venv (a minute or two) …"
	$(PIP_INSTALL) --editable '.[daemon]'
	@bash scripts/mlx_header.sh $(BIN)
	@touch $@

.venv/developing: .venv/installed pyproject.toml
	@echo "Installing the developers' tools into .venv …"
	$(PIP_INSTALL) --group dev
	@# What the test of the built wheel installs from, without the network.
	$(BIN)/python -m pip download --quiet --dest .venv/wheelhouse '.[daemon]'
	@touch $@

.venv/documenting: .venv/created pyproject.toml
	$(PIP_INSTALL) --group docs
	@touch $@

.venv/darwin: .venv/created pyproject.toml
	$(PIP_INSTALL) --group darwin
	@touch $@

install: .venv/installed ## safetrain and its daemon into .venv

demo: .venv/installed ## the whole main job: model, preflight, training, question
	@bash scripts/demo.sh

test: check ## everything that is checked; .ci/run calls this
	@PYTHON=$(BIN)/python bash scripts/chromium.sh
	@bash scripts/sshd.sh
	$(BIN)/pytest -n 5 --dist loadfile --no-loadscope-reorder -m 'not slow'

check: .venv/developing ## format, lint, types, layers, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory --jobs 3 --output-sync .types .types-darwin .rest .bytecode

.PHONY: .types .types-darwin .rest .bytecode
# Each reads all of the code, for its platform.
.types:
	$(BIN)/mypy

.types-darwin:
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin

.rest:
	$(BIN)/lint-imports
	$(BIN)/python scripts/gen_proto.py --check
	@bash scripts/linters/run.sh
	$(BIN)/zizmor --offline --quiet .github
	$(BIN)/python scripts/catalogues.py --check
	$(BIN)/python scripts/settings_doc.py --check
	$(BIN)/python scripts/json_doc.py --check

# pytest rewrites the tests' asserts; without what this keeps, each of its workers does so for all.
# What is wrong with a test is told by the tests.
.bytecode:
	@$(BIN)/pytest --collect-only -qq >/dev/null || true

format: .venv/developing ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: .venv/developing ## write the code generated from proto/
	$(BIN)/python scripts/gen_proto.py

proto-baseline: ## at a release: the protocol that buf breaking compares with
	@bash scripts/linters/run.sh baseline

docs: .venv/documenting ## the documents as a site, in site/; fails on a broken link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The documents are in site/index.html"

darwin: .venv/darwin ## the wheels for Apple silicon: do all resolve, is every name of mlx there
	$(BIN)/python scripts/darwin_wheels.py

i18n: .venv/developing ## collect the sentences, compile the catalogues
	$(BIN)/python scripts/catalogues.py
	$(BIN)/python scripts/settings_doc.py
	$(BIN)/python scripts/json_doc.py

mac-table: .venv/developing ## docs/macs.md: what is recommended on which Mac
	$(BIN)/python -m scripts.mac_table

conformance: .venv/developing ## the trainer's properties: ours, and mlx-lm's beside it
	$(BIN)/python -m benchmarks.conformance

bench-train: .venv/developing ## the trainer against mlx_lm.lora, side by side
	$(DEMO) $(BIN)/safetrain models add demo
	$(DEMO) $(BIN)/python -m benchmarks.bench_train
	$(DEMO) $(BIN)/python -m benchmarks.bench_ask

bench-serve: .venv/developing ## `safetrain serve` against `ask`: to the first token; 32 clients at once
	$(DEMO) $(BIN)/safetrain models add demo
	$(DEMO) $(BIN)/python -m benchmarks.bench_serve

bench-layers: .venv/developing ## recurrent layers and attention there and back, beside mlx-lm's
	$(BIN)/python -m benchmarks.bench_layers

architectures: .venv/developing ## every architecture of mlx-lm, in every way of training; writes the page
	$(BIN)/python -m benchmarks.architectures

bench-preflight: .venv/developing ## extrapolated and measured peaks against trainings, over models and budgets
	$(DEMO) $(BIN)/safetrain models add demo
	$(DEMO) $(BIN)/python -m benchmarks.bench_preflight

bench-published: .venv/developing ## the estimate from shape against peaks published of Macs
	$(BIN)/python -m benchmarks.bench_published

bench-cli: .venv/developing ## how fast the commands feel, against their floor
	$(BIN)/python -m benchmarks.bench_cli

bench-host: .venv/developing ## `status --host` against `ssh HOST true`, by the delay of the link
	@bash scripts/sshd.sh
	$(BIN)/python -m benchmarks.bench_host

upgrade: .venv/developing ## an upgrade from an earlier wheel in mid-training
	$(BIN)/pytest -m slow tests/packaging/test_upgrade.py

gguf: .venv/developing ## llama.cpp loads the GGUF file of each family, and answers as we do
	$(PIP_INSTALL) --group gguf
	$(BIN)/pytest -n 0 -m slow -s tests/export/test_gguf_families.py

serve-clients: .venv/developing ## programs of others ask `safetrain serve`: OpenAI's for Node.js, llm
	$(BIN)/pytest -n 0 -m slow tests/serve/test_other_clients.py

journeys: .venv/developing ## whole journeys that take too long for `make test`: pages, pilot, links that break
	$(BIN)/pytest -n 2 --dist loadfile -m slow tests --ignore tests/soak --ignore tests/packaging --ignore tests/serve/test_other_clients.py --ignore tests/export

journey-demo: .venv/developing ## the page's journeys with the demo's model in place of a tiny one
	@PYTHON=$(BIN)/python bash scripts/chromium.sh
	$(DEMO) $(BIN)/safetrain models add demo
	SAFETRAIN_JOURNEY_MODEL=$(CURDIR)/.demo/home/models/demo $(BIN)/pytest -n 0 -s -m slow --timeout 1800 --durations 5 tests/dashboard/test_journey.py

links: .venv/developing ## another machine by a real sshd: 50 links that break, a 1 GB upload
	@bash scripts/sshd.sh
	SAFETRAIN_LINK=$(LINK) SAFETRAIN_BREAKS=50 SAFETRAIN_UPLOAD_MB=1024 $(BIN)/pytest -n 0 -s --timeout 3600 tests/remote

notebooks: .venv/developing ## the notebooks in both languages, run on a tiny model
	$(BIN)/pytest -n 0 -m "slow or not slow" tests/docs/test_notebook.py

trials: .venv/developing ## small inputs on which trainers go wrong in silence, each with what is right
	$(BIN)/pytest -n 0 tests/trials

fuzz: .venv/developing ## many broken lines and model folders: a sentence each, no traceback
	SAFETRAIN_FUZZ_LINES=4000 SAFETRAIN_FUZZ_FOLDERS=600 $(BIN)/pytest -n 0 --timeout 3600 tests/trials/test_fuzz.py

bench-verdict: .venv/developing ## how often the verdict of an evaluation errs, and finds a planted change
	$(BIN)/python -m benchmarks.bench_verdict

bench-prepare: .venv/developing ## 1 GB prepared, against a bare loop; 1,000 seeds of planted repeats
	SAFETRAIN_SPLIT_SEEDS=1000 $(BIN)/pytest -n 0 tests/prepare/test_prepare.py::test_near_equal_samples_stay_on_one_side
	$(BIN)/python -m benchmarks.bench_prepare

bench-queue: .venv/developing ## what listing jobs costs with 1,000 waiting and 5,000 ended
	$(BIN)/python -m benchmarks.bench_queue

bench-page: .venv/developing ## how soon the page stands with 5,000 jobs, and what it costs a training
	@PYTHON=$(BIN)/python bash scripts/chromium.sh
	$(BIN)/python -m benchmarks.bench_page

bench-ranks: .venv/developing ## what a step of several ranks sends; the speed-up simulated over real links
	$(DEMO) $(BIN)/safetrain models add demo
	$(DEMO) $(BIN)/python -m benchmarks.bench_ranks

bench-settings: .venv/developing ## do the recommended settings learn as much as the best of a grid
	$(BIN)/python -m benchmarks.bench_settings

fuzz-client: .venv/developing ## 20,000 malformed calls of every service
	SAFETRAIN_FUZZED_CALLS=20000 $(BIN)/pytest -n 0 -s tests/daemon/test_malformed_calls.py

corruption: .venv/developing ## every file of a home and an output folder, damaged in every way
	SAFETRAIN_CORRUPTIONS=all $(BIN)/pytest -n 0 -s tests/corruption

soak: .venv/developing ## KILLS random kills and stops, watchers, an idle daemon, 20 out-of-memory deaths
	KILLS=$(KILLS) $(BIN)/pytest -s -m slow tests/soak --ignore tests/soak/test_ranks.py --ignore tests/soak/test_machines.py
	SAFETRAIN_OOM_RUNS=20 $(BIN)/pytest -s -rs --timeout 3600 tests/daemon/test_out_of_memory.py

ranks: .venv/developing ## trainings of 2, 3 and 4 ranks under 60 random kills and stops
	KILLS=60 $(BIN)/pytest -n 0 -s -m slow tests/soak/test_ranks.py

machines: .venv/developing ## trainings of 2, 3 and 4 machines by a real sshd, under 60 random faults on either side
	@bash scripts/sshd.sh
	SAFETRAIN_LINK=$(LINK) $(BIN)/pytest -n 0 -m slow tests/remote/test_machines.py
	SAFETRAIN_LINK=$(LINK) KILLS=60 $(BIN)/pytest -n 0 -s -m slow tests/soak/test_machines.py

clean: ## the demo's home and caches; not .venv, nor the reports of the soak, which add up
	rm -rf .demo .darwin site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build
