PYTHON ?= python3
.DEFAULT_GOAL := help

.PHONY: help
help: ## Lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/.ready: requirements/dev.txt $(wildcard libs/*/pyproject.toml services/*/pyproject.toml cli/pyproject.toml)
	@echo "setting up .venv"
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation $(foreach p,$(wildcard libs/*/pyproject.toml services/*/pyproject.toml cli/pyproject.toml),-e $(dir $(p)))
	@touch $@

.PHONY: test
test: .venv/.ready ## Sets up and passes the tests
	.venv/bin/python -m pytest
