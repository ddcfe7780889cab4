# Each target makes the environment it needs; `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := .tools/bin
GRPCURL_VERSION := v1.9.4
CODEX_CLI := tests/system/codex_cli
PACKAGES := admission_client admission_server control_api demo edge_proxy service_runtime upstream_simulator
DEMO_ARGS ?=
UP_ARGS ?=
TEST_ARGS ?=
SEEDS ?= 3000

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: venv
venv: $(READY) ## Make the environment in .venv

$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sluicegate needs Python 3.11 or newer; name one with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: $(READY) ## Simulator, three processes, a demo account and one turn; runs until Ctrl-C (DEMO_ARGS="--once --port-base N")
	@$(BIN)/python -m demo $(DEMO_ARGS)

.PHONY: up
up: $(READY) ## The three processes on embedded defaults, for real accounts (UP_ARGS="--port-base N")
	@$(BIN)/python -m demo up $(UP_ARGS)

.PHONY: test
test: $(READY) ## All tests (TEST_ARGS="-k lease")
	$(BIN)/pytest $(TEST_ARGS)

.PHONY: simulate
simulate: $(READY) ## Many seeds of the network simulation (SEEDS=3000)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

.PHONY: check
check: $(READY) ## Format, lint, types, import map, contract, stubs, locks, known holes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MAKE) --no-print-directory check-proto check-locks audit

.PHONY: check-proto
check-proto: $(READY)
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@$(MAKE) --no-print-directory check-breaking
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(MAKE) --no-print-directory stubs STUBS="$$fresh"; \
	for f in proto/admission/v1/*_pb2*.py*; do cmp "$$f" "$$fresh/$${f#proto/}" || { echo "stale stubs: run 'make proto'"; exit 1; }; done

# The last tag before this commit; where the history was cut off, the highest one that is here.
.PHONY: check-breaking
check-breaking: $(READY)
	@tag=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || git tag --list 'v*' --sort=-version:refname | sed -n 1p); \
	if [ -n "$$tag" ]; then echo "buf breaking: compared with $$tag"; $(BIN)/buf breaking --against ".git#tag=$$tag"; \
	elif [ "$$(git rev-parse --is-shallow-repository)" = true ]; then echo "buf breaking: no tag v* in this shallow clone, so nothing to compare with; 'git fetch --tags' brings them"; \
	else echo "buf breaking: no tag v* here, so nothing to compare with"; fi

.PHONY: check-locks
check-locks:
	@! grep -nE '://' requirements/*.lock || { echo "a lock names an address"; exit 1; }

.PHONY: audit
audit: $(READY) ## Ask whether known holes concern the locked versions, where the advisory service can be reached
	@$(BIN)/python -m requirements.audit

.PHONY: format
format: $(READY) ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write

STUBS ?= proto
.PHONY: stubs
stubs: $(READY)
	@$(BIN)/python -m grpc_tools.protoc --proto_path=proto --python_out=$(STUBS) --pyi_out=$(STUBS) --grpc_python_out=$(STUBS) proto/admission/v1/*.proto

.PHONY: proto
proto: stubs ## Regenerate the stubs of proto/admission/v1
	$(BIN)/buf format --write

.PHONY: docs
docs: $(READY) ## Write docs/configuration.md from the settings again
	$(BIN)/python -m docs.make_configuration

.PHONY: bench
bench: $(READY) ## Benchmarks; see benchmarks/README.md
	$(BIN)/python -m benchmarks

.PHONY: locks
locks: $(READY) ## Lock the dependencies again (UV_ARGS="--upgrade")
	for extra in admission edge control dev; do \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	    --custom-compile-command "make locks" --extra $$extra $(UV_ARGS) pyproject.toml --output-file requirements/$$extra.lock; \
	done

.PHONY: tools
tools: ## grpcurl (needs Go), the Codex CLI (needs npm) and PostgreSQL (needs root on Debian), for the tests
	@if command -v go >/dev/null; then \
	  [ -x $(TOOLS)/grpcurl ] || GOBIN="$(CURDIR)/$(TOOLS)" go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION); \
	else echo "no Go here: grpcurl is not installed"; fi
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix $(CODEX_CLI); \
	else echo "no npm here: the Codex CLI is not installed"; fi
	@if command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends postgresql >/dev/null; \
	else echo "no root on Debian here: PostgreSQL is not installed"; fi

.PHONY: clean
clean: ## Remove the environment, caches and demo data
	rm -rf $(VENV) .tools .demo .data .mypy_cache .ruff_cache .pytest_cache .hypothesis $(CODEX_CLI)/node_modules
