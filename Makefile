PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install quickstart test versions wheel lint format smoke clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | column -t -s "$$(printf '\t')"

install: $(INSTALLED) ## .venv with everything, in the tested versions

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

quickstart: install ## train, distil, save, reload and query on the embedded task (minutes, offline)
	$(BIN)/python -m training.quickstart

test: install ## all tests, on two cores (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

versions: install ## the Hub files under other releases of transformers (kept in .versions)
	timeout 600 $(BIN)/python -m tests.versions

wheel: install ## the wheel alone: trains, distils, evaluates, exports, searches, outside the clone
	timeout 600 $(BIN)/python -m tests.wheel

lint: install ## style, types, imports between rooms, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos

format: install ## rewrite files in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smoke: install ## the quickstart with a few steps: every stage runs, nothing is learned
	rm -rf runs/smoke
	$(BIN)/python -m training.quickstart --output_dir runs/smoke \
		--train_reranker.max_steps 8 --train_reranker.warmup_steps 2 --train_reranker.dev_groups 32 \
		--distill.max_steps 12 --distill.warmup_steps 2 --distill.candidates 12 \
		--evaluate.max_queries 12

clean: ## remove the environment and all runs
	rm -rf $(VENV) runs
