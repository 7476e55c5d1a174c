# Needs only Python >= 3.11 and make: every target sets up what it needs in .venv, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := 0.13.8
READY := $(VENV)/.ready
MANIFEST := dbt_features/target/manifest.json
DBT_FILES := $(shell find dbt_features -path dbt_features/target -prune -o -path dbt_features/logs -prune -o -type f -print)

# Most tests wait for a process of their own. A file's tests stay together, for they share what they made.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup run test check drills ui bench clean lock

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) $(MANIFEST)  ## make .venv from requirements.lock and parse the dbt project

run: setup  ## run the nightly job once on the embedded market (or on what .env says)
	@$(BIN)/quant-assets run

test: setup  ## all tests but the drills
	@$(BIN)/pytest -m "not drill" $(SIDE_BY_SIDE)

check: setup  ## lint and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

drills: setup  ## long crash and fault drills
	@$(BIN)/pytest -m drill

ui: setup  ## Dagster, MLflow, dbt's docs and the embedded document store, on loopback
	@$(BIN)/quant-assets ui

bench: setup  ## benchmarks, one JSON line each
	@for script in benchmarks/*.py; do $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

clean:  ## remove what setup and tests made (not your data under var/)
	rm -rf $(VENV) dbt_features/target dbt_features/logs .pytest_cache .mypy_cache .ruff_cache .hypothesis

lock: $(READY)  # resolve pyproject.toml anew
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --upgrade -o requirements.lock -q

$(READY): requirements.lock pyproject.toml
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "Python 3.11 or newer is needed; say which: make PYTHON=python3.12" && exit 1)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV)
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync -q --require-hashes --compile-bytecode requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(MANIFEST): $(DBT_FILES) $(READY)
	@$(BIN)/dbt parse -q --no-partial-parse --project-dir dbt_features --profiles-dir dbt_features --no-send-anonymous-usage-stats
	@touch $@
