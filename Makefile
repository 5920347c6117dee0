# Every verb of the project. `make help` lists them; the work is in scripts/ and in the command `whetstone`.
SHELL := /bin/sh
VENV := .venv/bin
# The first Python that is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
CUDA ?= 0
export CUDA

.DEFAULT_GOAL := help
.PHONY: help run demo check test peers bench lock style install install-test install-peers install-potato clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'
	@echo "  PORT=8001 WHETSTONE_HOME=folder CUDA=1 PYTHON=python3.12 may stand before or after."

run: install ## Install what is missing and start everything, with demo campaigns (Ctrl-C stops it)
	@$(VENV)/whetstone up --demo

demo: install ## Three rounds with a simulated crowd on a throw-away home; a table and a plot
	@$(VENV)/whetstone demo --rounds 3 --people 12 --comparisons 300

style: install-test install-peers
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/python scripts/lock.py --check

check: style ## Style, types, the lock, and the house's rules
	@$(VENV)/python -m pytest -q tests/test_house.py

test: style ## All that `check` checks, and all tests but those for a GPU (T='-m "not slow and not gpu"' for the fast ones)
	@sh scripts/chromium.sh
	@sh scripts/compiler.sh
	@OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n 2 --dist worksteal $(if $(T),$(T),-m "not gpu")

peers: install-test install-peers ## Install TRL in .venv-peers and compare our numbers with its
	@$(VENV)/python -m pytest -q -m peers

bench: install-test install-peers install-potato ## Ours beside the peers' on one small size, in some minutes (docs/speed.md)
	@sh scripts/chromium.sh
	@for subject in limits platform generate preference policy; do $(VENV)/python -m bench.$$subject --quick || exit 1; done

lock: ## Write requirements/ anew from what is installed in .venv
	@$(VENV)/python scripts/lock.py

install:
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed and none was found; install it, or say PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) scripts/install.py

install-test:
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed and none was found; install it, or say PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) scripts/install.py --test

install-peers: install
	@$(PYTHON) scripts/install.py --peers

install-potato: install
	@$(PYTHON) scripts/install.py --potato

clean: ## Remove .venv, .venv-peers, .venv-potato and caches; the data in .whetstone stay
	@rm -rf .venv .venv-peers .venv-potato .bench .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
