# Everything below needs python 3.11 or newer with pip, and make; tests of Azure need node with npm besides.
PYTHON ?= python3
PORT ?= 3000
BIN := .venv/bin

.PHONY: azurite demo ui test lint clean

demo: .venv/ready  ## seed the embedded ClickHouse and export it to .langfuse/blobs
	$(BIN)/langfuse-worker demo

ui: .venv/ready  ## Dagster's UI on http://127.0.0.1:$(PORT)
	$(BIN)/langfuse-worker start --port $(PORT)

test: .venv/ready azurite  ## every test; they bring their own servers
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded,dev]'
	touch $@

azurite: .cache/azurite/3.37.0  ## the Azure Blob Storage of the tests

.cache/azurite/%:
	@command -v npm >/dev/null || { echo "make test: npm is missing; Azurite, the Azure server of the tests, needs node and npm" >&2; exit 1; }
	npm install --prefix $(@D) --silent --no-audit --no-fund --no-save azurite@$*
	touch $@

clean:
	rm -rf .venv .cache .langfuse .dagster
