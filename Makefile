# `make demo` and `make test` are all that a fresh machine with Python 3.11 or 3.12 needs.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

STATES ?= 1000000
INTEROP := interop-kgo interop-kafka-tools interop-kcat interop-kafka-python

.PHONY: help setup demo test lint types unit bench bench-broker lock clean interop fuzz jepsen crash-states $(INTEROP)

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

.venv/installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "tailrace needs Python 3.11 or 3.12: install one, or set PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { echo "python cannot make a virtual environment: on Debian or Ubuntu, install the package python3-venv"; exit 1; }
	$(BIN)/pip install --require-hashes -r requirements.lock
	$(BIN)/pip install --no-deps --no-build-isolation --editable .
	@touch $@

setup: .venv/installed  ## make .venv from the hash-locked requirements

demo: setup  ## run the whole pipeline on a real Postgres, with kills, and verify every table
	$(BIN)/tailrace demo --rows 200000

lint: setup  ## ruff and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup  ## mypy --strict on code and tests
	$(BIN)/mypy

unit: setup  ## the tests that need no server
	$(BIN)/pytest tests/unit tests/architecture

test: lint types  ## everything CI runs
	$(BIN)/pytest

bench: setup  ## CPU us/row and rows/s, next to pg_recvlogical and COPY (not part of CI)
	$(BIN)/python -m tests.benchmarks

bench-broker: setup  ## the broker next to Apache Kafka: MB/s, CPU per GB, memory, start after SIGKILL (not part of CI)
	$(BIN)/python -m tests.benchmarks.broker --restart-gb 10

interop: setup  ## every client's own test suite against the broker, with a table (interop-kgo and so on: one suite)
	$(BIN)/python -m tests.conformance

$(INTEROP): interop-%: setup
	$(BIN)/python -m tests.conformance $*

fuzz: setup  ## feed 10 million damaged inputs to every reader of the broker and of its client
	$(BIN)/python -m tests.fuzz
	TAILRACE_FUZZ_ROUNDS=200 $(BIN)/pytest tests/fuzz

jepsen: setup  ## Jepsen's Kafka workload for 200 x 300 s and 10,000 late EndTxn requests: nothing may be found
	TAILRACE_END_TXN_ATTACKS=10000 $(BIN)/pytest tests/crash/test_end_txn_delay.py
	$(BIN)/python -m tests.jepsen --runs 200 --seconds 300

crash-states: setup  ## recover 1,000,000 states that power cuts leave on the disk of the log, on all cores
	$(BIN)/python -m tests.crash.states.explore --states $(STATES) --samples 20 --shards $$(nproc)

lock: setup  ## resolve the requirements again
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock

clean:  ## remove what the targets made
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
