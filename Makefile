PYTHON ?= python3
PIP ?= $(BIN)/python -m pip
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

.PHONY: help install quickstart test test-slow coverage versions wheel serving others lint docs format smoke clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | column -t -s "$$(printf '\t')"

install: $(INSTALLED) ## .venv with everything, in the tested versions

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable ".[dev]"
	touch $@

quickstart: install ## train, distil, save, reload and query on the embedded task (minutes, offline)
	$(BIN)/python -m training.quickstart

test: install ## the tests that are not slow, on two cores (minutes)
	$(PYTEST) -m "not slow"

test-slow: install ## the slow tests: killed and many processes, a browser, other engines, whole families
	$(PYTEST) -m slow

coverage: install ## both, and which lines of the package none of them reaches
	$(PYTEST) --cov

versions: install ## the Hub files under other releases of transformers (kept in .versions)
	timeout 600 $(BIN)/python -m tests.versions

wheel: install ## the wheel alone: trains, distils, evaluates, exports, searches, outside the clone
	timeout 600 $(BIN)/python -m tests.wheel

serving: install ## vLLM, Infinity, fastembed, OpenVINO and others serve exports (gigabytes, half an hour; not in .ci/run)
	$(BIN)/python -m tests.serving_engines

others: install ## what docs/from-other-libraries.md says of other libraries, in the releases that it names (not in .ci/run)
	$(BIN)/python -m tests.other_libraries

lint: install ## style, types, imports between rooms, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos

PAGES = README.md SECURITY.md CONTRIBUTING.md CHANGELOG.md CITATION.cff docs model_cards/*.md benchmarks/*.md benchmarks/results/*.png \
	modeling_rabtriever/tasks/*.yaml modeling_rabtriever/recipes/*.yaml

docs: install ## the site, in build/site; a warning is an error
	rm -rf build/pages build/site
	mkdir -p build/pages
	tar -c $(PAGES) | tar -x -C build/pages
	$(BIN)/zensical build --strict --clean

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
