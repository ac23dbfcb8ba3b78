# make reproduce-table2 [SCALE=auto|mini|paper|...] [DATA=DIR] [ARGS="--set epochs=2 ..."]
PYTHON ?= python3
SCALE ?= auto
DATA ?=
WEIGHTS ?=
ARGS ?=
OUT ?= gpu-session
BUILDER ?= podman
LOCKED ?=
PY := .venv/bin/python
# A machine with a GPU may bring its own torch, and reach no registry.
HERE = $(if $(wildcard $(PY)),$(PY),$(PYTHON))
GRIDS := cifar100 caltech256 ilsvrc2012 cub200 voc
TABLE_SCALE = $(if $(filter auto,$(SCALE)),$(if $(DATA),paper,mini),$(SCALE))
OPTIONS = --scale "$(SCALE)" $(if $(DATA),--data-root "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(ARGS)
ATTACKED = faults fuzz properties verify reading hostile data_archives distributed
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(PY) -m pytest
COG = .venv/bin/cog -P -I docs -p "from generated import *"
MEASURED = $(if $(filter-out auto,$(SCALE)),--scale "$(SCALE)") $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce-table1 reproduce-table2 reproduce-headline reproduce-all $(GRIDS:%=reproduce-%) tables status diff verify report figures docs test test-slow test-faults test-gpu gpu-evidence bench container lint format locked numbers records clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'make reproduce-NAME trains one grid: $(GRIDS)'
	@echo 'SCALE=auto|mini|subset|paper   DATA=folder of the real data   WEIGHTS=file or folder   ARGS="more options"'

setup: .venv/installed ## make .venv from constraints.txt (LOCKED=1: all but torch by its SHA-256)

.venv/installed: pyproject.toml constraints.txt $(if $(LOCKED),constraints-locked.txt)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(if $(LOCKED),$(PY) -m pip install --quiet --require-hashes --no-deps --requirement constraints-locked.txt)
	$(PY) -m pip install --quiet $(if $(LOCKED),--no-build-isolation) --constraint constraints.txt --editable ".[test]"
	touch $@

# Not torch and torchvision: which build of them fits is the machine's matter, and a hash would refuse all others.
# Resolved as for macOS, where torch brings no CUDA along; a version's hashes are those of all its files anyway.
locked: setup ## make constraints-locked.txt again: what .[test] needs, by SHA-256
	$(PY) -m pip install --quiet --constraint constraints.txt uv
	MACOSX_DEPLOYMENT_TARGET=14.0 .venv/bin/uv pip compile pyproject.toml --extra test --constraint constraints.txt \
		--python-version 3.11 --python-platform macos --generate-hashes --no-annotate --quiet --upgrade \
		--no-emit-package torch --no-emit-package torchvision \
		--custom-compile-command "make locked" --output-file constraints-locked.txt

reproduce-table2: setup ## train the VOC grid and make Table 2 (tables/<scale>/table2.*)
	@$(PY) -m benchmark run --grid voc $(OPTIONS)

reproduce-table1: setup ## make Table 1 from the grids and the data at hand
	@$(PY) -m benchmark tables --table table1 --scale $(TABLE_SCALE) $(if $(DATA),--data-root "$(DATA)")

reproduce-voc reproduce-cifar100 reproduce-caltech256 reproduce-ilsvrc2012 reproduce-cub200: reproduce-%: setup
	@$(PY) -m benchmark run --grid $* $(OPTIONS)

reproduce-headline: setup ## train every grid and make the headline table
	@for grid in $(GRIDS); do $(PY) -m benchmark run --grid $$grid $(OPTIONS) || exit $$?; done
	@$(PY) -m benchmark tables --table headline --scale $(TABLE_SCALE)

reproduce-all: reproduce-headline reproduce-table1 ## train every grid and make every table

tables: setup ## make the tables again from runs/, without training
	@$(PY) -m benchmark tables

status: setup ## list the jobs under runs/ by state
	@$(PY) -m benchmark status

diff: setup ## compare Table 2 with the published one (see --help for the exit status)
	@$(PY) -m benchmark diff --table table2

verify: setup ## compute every record under runs/ again from its scores
	@$(PY) -m benchmark verify

report: setup ## write tables/<scale>/report.html: verdicts, tables, figures, traces
	@$(PY) -m benchmark report $(MEASURED) $(if $(DATA),--data-root "$(DATA)")

figures: setup ## draw gains, values and training curves as PNG and PDF
	@$(PY) -m benchmark figures $(MEASURED) $(if $(DATA),--data-root "$(DATA)")

docs: .venv/docs ## build build/site/index.html; fails for a warning, a broken link, a number that the records do not give
	$(COG) --check README.md docs/*.md
	$(PYTEST) --quiet tests/test_reproduction.py tests/test_documents.py
	$(PY) docs/build.py

.venv/docs: .venv/installed
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

test: setup ## run the tests but those that are marked slow
	$(PYTEST) -m "not slow and not records" --numprocesses auto --dist worksteal

test-gpu: ## run the tests that need a GPU (elsewhere they are skipped, by name); installs nothing
	$(HERE) -m pytest -m gpu

gpu-evidence: ## find out all that this GPU can tell in ten minutes, unattended (OUT=folder); installs nothing
	$(HERE) -m benchmark gpu-session "$(OUT)"

bench: setup ## measure speed as ratios, each of two sides that compute the same (ARGS="--quick", "--only time")
	@$(PY) -m benchmark bench $(ARGS)

test-slow: setup ## run the tests that make test leaves out
	$(PYTEST) -m "slow and not records" --numprocesses auto --dist worksteal

test-faults: setup ## kill, fill and damage 50 times, feed 10 times as many broken files (docs/reliability.md)
	FAULT_ROUNDS=50 FUZZ=10 PROPERTIES=50 $(PYTEST) --timeout 3600 $(ATTACKED:%=tests/test_%.py)

records: setup ## check that records, tables, answer and the numbers in README and docs agree
	$(PY) -m benchmark verify
	$(COG) --check README.md docs/*.md
	$(PYTEST) -m records --timeout 3600 --numprocesses auto --dist worksteal

numbers: setup ## write the tables and counts in README and docs again, from tables/ and runs/
	$(COG) -r README.md docs/*.md

lint: setup ## check style, format, types and which room imports which
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo --no-cache

format: setup ## apply style and format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

container: ## build the image icasc-benchmark from the Containerfile (BUILDER=podman, docker or buildah)
	$(BUILDER) build -f Containerfile -t icasc-benchmark .

clean: ## remove drawn data and caches; keeps runs/, tables/ and .venv
	rm -rf .cache build .pytest_cache .ruff_cache .mypy_cache
