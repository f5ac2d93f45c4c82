# Every task of the project. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LCM := $(BIN)/lcm-ml
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export DBT_PROFILES_DIR := $(CURDIR)
export DBT_SEND_ANONYMOUS_USAGE_STATS := false

.PHONY: help setup demo sample test test-slow test-long lint format chaos chaos-long bench bench-large bench-check docs lock clean

help: ## List the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

# An install step leaves its mark only when it went through, so a broken one is done again.
$(VENV)/runtime.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("lcm needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing (hash-checked, once) ..."
	@$(PIP) install --require-hashes --no-deps -r requirements.lock
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/dev.done: $(VENV)/runtime.done requirements-dev.lock
	@echo "installing what the tests need ..."
	@$(PIP) install --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

setup: $(VENV)/runtime.done ## Make .venv from the hash-locked requirements

demo: setup ## The main job on real data: load The Complete Journey, build, fit, score, publish
	@$(LCM) load complete-journey
	@$(LCM) run
	@$(LCM) status

sample: setup ## Make the sample seeds again
	@$(BIN)/python -m lcm_ml.sources.simulate --sample seeds/sample

# One thread for each worker: small fits on shared threads mostly wait for each other.
PYTEST = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest --sample=target/sample/lcm.duckdb \
	--numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/dev.done ## Run the tests: dbt build on the sample, then pytest
	@rm -f target/sample/lcm.duckdb && mkdir -p target/sample
	@LCM_WAREHOUSE=target/sample/lcm.duckdb $(BIN)/dbt build --target-path target/sample
	@$(PYTEST) -m "not slow"

test-slow: $(VENV)/dev.done ## Run the tests that take several builds, servers or killed processes, after `make test`
	@$(PYTEST) -m "slow and not long"

test-long: $(VENV)/dev.done ## Run the slow tests that take minutes each: before a release
	@$(PYTEST) -m long

lint: $(VENV)/dev.done ## Check Python (ruff, mypy) and SQL (sqlfluff)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sqlfluff lint models tests/dbt

format: $(VENV)/dev.done ## Format Python and SQL
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/sqlfluff fix models tests/dbt

# What is promised of readers, crashes and bad input, on shops of their own. docs/reliability.md has the figures.
chaos: $(VENV)/dev.done ## Readers during rebuilds, kills, mutated files: about 10 minutes
	@$(BIN)/python benchmarks/chaos/readers.py --cycles 4
	@$(BIN)/python benchmarks/chaos/kills.py --kills 24
	@$(BIN)/python benchmarks/chaos/fuzz.py --files 100

chaos-long: $(VENV)/dev.done ## The same for hours: 20 cycles, 200 kills, 2,000 files
	@$(BIN)/python benchmarks/chaos/readers.py --cycles 20
	@$(BIN)/python benchmarks/chaos/kills.py --kills 204
	@$(BIN)/python benchmarks/chaos/fuzz.py --files 2000

# Ratios against named references, side by side in one run. docs/performance.md has the figures.
bench: $(VENV)/dev.done ## Measure speed at a million events: about 3 minutes
	@$(BIN)/python benchmarks/bench.py --size $(or $(SIZE),1m) --rounds $(or $(ROUNDS),1)

bench-large: $(VENV)/dev.done ## The same at 100 million events: hours, and 60 GB of disk
	@$(BIN)/python benchmarks/bench.py --size 100m --rounds 1
	@$(BIN)/python benchmarks/growth.py --sizes 1m,3m,10m,30m,100m

bench-check: $(VENV)/dev.done ## Fail where a ratio is more than 25 % worse than in the committed summary
	@$(BIN)/python benchmarks/bench.py --size 1m --rounds 2 --check

docs: setup ## Make the dbt docs of the warehouse, in target/static_index.html
	@$(BIN)/dbt docs generate --static

lock: ## Resolve the requirements again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--no-emit-find-links --no-strip-extras --extra demo --extra insights --extra forecast --group build pyproject.toml \
		-o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--no-emit-find-links --no-strip-extras --extra demo --extra insights --extra forecast --extra tune --extra onnx --extra fairness \
		--extra mlflow --extra serve --extra postgres --group build --group dev \
		-c requirements.lock pyproject.toml \
		-o requirements-dev.lock

clean: ## Remove what is generated, but never the warehouse
	@rm -rf target logs .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "kept: warehouse/ (remove it by hand if you mean to)"
