# make test is all that a fresh clone needs: every target builds .venv by itself, once.
# A change of pyproject.toml or constraints.txt brings .venv up to date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CODE := mhc_diag cli/mhc_diag_cli reports/mhc_diag_reports

# One thread per worker: the matrices are small, and two workers share two cores.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.DELETE_ON_ERROR:
.PHONY: demo test test-fast check clean browser help

help:
	@echo 'make demo       train four small models, report on them, gate them'
	@echo 'make test       the whole test suite'
	@echo 'make test-fast  without the tests over two seconds'
	@echo 'make check      lint, format, types, floors, duplicate code'
	@echo 'make clean      remove caches, builds and the demo report (.venv stays)'

demo: $(READY)
	$(BIN)/mhc-diag demo --force

test: $(READY) browser
	$(BIN)/pytest -n 2

test-fast: $(READY) browser
	$(BIN)/pytest -n 2 -m 'not slow'

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pylint --recursive=y --disable=all --enable=duplicate-code --min-similarity-lines=10 \
		--ignore-imports=y --ignore-docstrings=y --ignore-signatures=y $(CODE)

clean:
	rm -rf build dist htmlcov .coverage demo-report
	rm -rf .pytest_cache .hypothesis .ruff_cache .mypy_cache .import_linter_cache
	find $(CODE) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Debian keeps venv in a package of its own; with the rights to do so it is installed here.
# The developers' tools stand in pyproject.toml as a dependency group, which older pips cannot read.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'mhc-diag needs Python 3.11 or later; name one with: make PYTHON=python3.12' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); \
		test "$$(id -u)" = 0 && command -v apt-get > /dev/null \
		&& apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv \
		&& $(PYTHON) -m venv $(VENV); } \
		|| { echo 'python3 cannot make virtual environments: apt-get install python3-venv' >&2; exit 1; }
	@$(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' \
		> $(VENV)/dev-group.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e . -r $(VENV)/dev-group.txt
	@touch $@

# The page is tested in a real browser; without one those tests are skipped, and say so.
browser:
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null \
		|| command -v google-chrome > /dev/null \
		|| { test "$$(id -u)" = 0 && command -v apt-get > /dev/null \
		&& apt-get update -q && apt-get install -y -q --no-install-recommends chromium; } \
		|| echo 'NOTE: no chromium here: the tests of the page in a browser will NOT run' >&2
