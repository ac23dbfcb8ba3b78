# make reproduce-table2 [SCALE=auto|mini|paper|...] [DATA=DIR] [ARGS="--set epochs=2 ..."]
PYTHON ?= python3
SCALE ?= auto
DATA ?=
WEIGHTS ?=
ARGS ?=
PY := .venv/bin/python
OPTIONS = --scale "$(SCALE)" $(if $(DATA),--data-root "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(ARGS)
MEASURED = $(if $(filter-out auto,$(SCALE)),--scale "$(SCALE)") $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce-table2 tables status diff report figures test lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo 'SCALE=auto|mini|subset|paper   DATA=folder of the real data   WEIGHTS=file or folder   ARGS="more options"'

setup: .venv/installed ## make .venv from constraints.txt

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

reproduce-table2: setup ## train the VOC grid and make Table 2 (tables/<scale>/table2.*)
	$(PY) -m benchmark run --grid voc $(OPTIONS)

tables: setup ## make the tables again from runs/, without training
	$(PY) -m benchmark tables

status: setup ## list the jobs under runs/ by state
	$(PY) -m benchmark status

diff: setup ## compare Table 2 with the published one (see --help for the exit status)
	$(PY) -m benchmark diff --table table2

report: setup ## write tables/<scale>/report.html: verdicts, tables, figures, traces
	$(PY) -m benchmark report $(MEASURED)

figures: setup ## draw gains, values and training curves as PNG and PDF
	$(PY) -m benchmark figures $(MEASURED)

test: setup ## run the tests
	$(PY) -m pytest

lint: setup ## check style and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: setup ## apply style and format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean: ## remove drawn data and caches; keeps runs/, tables/ and .venv
	rm -rf .cache .pytest_cache .ruff_cache
