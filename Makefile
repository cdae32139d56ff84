# qlaunch. `make` alone shows what there is.

SHELL = /bin/sh
MAKEFLAGS += --no-print-directory
VENV := .venv
BIN := $(VENV)/bin
# More arguments for pytest: make test ARGS='-k snapshot -x'
ARGS ?=
# Where the wheel goes with `make install`: nothing means the user's own ~/.local
PREFIX ?= $(HOME)/.local

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types house sizes format chaos fuzz bench golden install clean

help: ## this list
	@echo 'qlaunch: what make can do here'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo "More for pytest: make test ARGS='-k name -x'"

demo: ## install what is missing and boot the demo guest
	@tools/bootstrap system demo
	@$(MAKE) -s $(VENV)/.package
	@tools/demo $(BIN)/qlaunch

test: ## every test; their prerequisites are installed too
	@tools/bootstrap system test
	@$(MAKE) -s $(VENV)/.dev
	@tools/run-tests $(ARGS)

check: lint types house sizes ## ruff, mypy, the house, sizes

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

house: $(VENV)/.dev ## which room imports which (import-linter)
	$(BIN)/lint-imports --no-cache --no-logo

sizes: $(VENV)/.dev ## functions of at most 50 lines, files of at most 400
	$(BIN)/python tools/check_sizes.py

format: $(VENV)/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chaos: $(VENV)/.dev ## kill everything at random, and look whether anything is lost
	@tools/bootstrap system test
	$(BIN)/python -m tests.chaos $(ARGS)

fuzz: $(VENV)/.dev ## feed the parsers with damaged input
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(VENV)/.dev ## measure against QEMU with nothing between
	@tools/bootstrap system demo
	$(BIN)/python -m tests.bench $(ARGS)

golden: $(VENV)/.dev ## rewrite golden files and generated pages; read the diff like code
	$(BIN)/python -m qlaunch.profile.reference
	$(BIN)/python -m qlaunch.cli.completion
	$(BIN)/python -m qlaunch.cli.manpage
	$(BIN)/python -m qlaunch.cli.phrasebook
	$(BIN)/pytest --golden $$(grep -l golden tests/test_*.py) -m "not (qemu or kvm or guest or netns or spice or fault or systemd or slow)" $(ARGS)
	@git status --short -- tests docs share || true

install: ## put a stand-alone qlaunch into PREFIX (~/.local)
	@tools/bootstrap system demo
	@tools/bootstrap install "$(PREFIX)"

clean: ## remove what make made (machines of yours stay)
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find qlaunch tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp names what the environment holds: the package alone, or the developer's tools too.
$(VENV)/.package: pyproject.toml
	@tools/bootstrap system venv
	@tools/bootstrap venv package

$(VENV)/.dev: pyproject.toml
	@tools/bootstrap system venv
	@tools/bootstrap venv dev
