# Everything a fresh clone needs: Python 3.11 or newer and make. `make demo` and `make test` do all their set-up.
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed
THREADS := OMP_NUM_THREADS=1
CHAOS_TIME := $(if $(HIPFED_LONG),6h,150m)

.PHONY: demo test browser chaos lint lock clean

demo: cohorts/demo/schema.toml
	rm -rf runs/demo
	$(BIN)/hipfed-sim run --cohort cohorts/demo --out runs/demo

cohorts/demo/schema.toml: $(INSTALLED)
	rm -rf cohorts/demo
	$(BIN)/hipfed-sim cohort --out cohorts/demo --patients 1000 --image-size 40

# tests/conftest.py says which tests stay together; the slowest are told at the end.
test: $(INSTALLED) browser lint
	$(THREADS) $(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder --durations=25

# Debian's chromium for tests/browser, where it is missing and may be installed; without it they are skipped, in CI not.
browser:
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && apt-get update -qq \
		&& apt-get install -y -qq --no-install-recommends chromium; } || echo "no chromium: tests/browser is skipped"

# Faults in a real deployment, one after another; figures go to .pytest_cache/chaos.xml.
# HIPFED_LONG=1: at every step, and the long runs of the fuzz tests.
chaos: $(INSTALLED)
	$(THREADS) timeout --signal INT $(CHAOS_TIME) $(BIN)/python -m pytest -m chaos -p no:randomly --durations=0 \
		--junit-xml .pytest_cache/chaos.xml -o junit_family=legacy tests/end_to_end/chaos
ifdef HIPFED_LONG
	$(THREADS) $(BIN)/python -m pytest tests/client/test_worker_fuzzing.py tests/client/socket/test_frames.py
endif

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(INSTALLED): pyproject.toml .ci/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[research,bench,dev]'
	touch $@

# Newest versions that fit pyproject.toml; names and versions only, no addresses.
lock: $(INSTALLED)
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --all-extras --allow-unsafe --no-emit-index-url \
		--no-emit-trusted-host --no-emit-find-links --no-annotate --no-header \
		--output-file .ci/constraints.txt pyproject.toml

clean:
	rm -rf .venv runs cohorts .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
