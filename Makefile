# `make demo` and `make test` need Python 3.11 and nothing else: each makes the virtual environment that it runs in.
# `make test` leaves out the tests that are marked as slow, `make test-all` runs every test, and every grid at its smallest size.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
CODE := sb3_sparse tests benchmarks docs

.PHONY: demo test test-all benchmark-smoke type lint format check-codestyle commit-checks kernel doc clean

# The same CPU time for a dense agent on stock SB3 and for a 90 % sparse one in the engine, side by side.
demo: $(READY)
	$(BIN)/python -m benchmarks.demo

test: $(READY)
	$(BIN)/python -m pytest -q -n auto -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -q -n auto --durations 10
	$(MAKE) benchmark-smoke

# Every grid from its start: in a new folder, which stays if one fails.
benchmark-smoke: $(READY)
	@folder=$$(mktemp -d) && export MINARI_DATASETS_PATH=$$folder/minari && $(BIN)/python -m benchmarks.data.smoke && \
	for grid in benchmarks/grids/*.yml; do $(BIN)/sb3-sparse benchmark run $$grid --size smoke --folder $$folder || exit 1; done && \
	ls benchmarks/grids/*.yml | xargs -P 2 -I{} $(BIN)/sb3-sparse benchmark report {} --size smoke --folder $$folder && rm -r $$folder

# torch comes first and by version: anything else would bring gigabytes of CUDA.
$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e .[zoo,offline,atari,minatar,dev,docs]
	touch $(READY)

type: $(READY)
	$(BIN)/mypy

lint: $(READY)
	$(BIN)/ruff check $(CODE)

format: $(READY)
	$(BIN)/ruff check --select I --fix $(CODE)
	$(BIN)/black -q $(CODE)

check-codestyle: $(READY)
	$(BIN)/ruff check $(CODE)
	$(BIN)/black --check -q $(CODE)

commit-checks: format type lint

# The kernel of web pages. It is in the repository: only a change of the portable C kernels needs this, and clang 14 with lld.
KERNEL := sb3_sparse/export/web/kernel.wasm
kernel:
	clang --target=wasm32 -std=c99 -O2 -mbulk-memory -ffp-contract=off -fno-math-errno -fno-trapping-math -nostdlib \
		-I sb3_sparse/export/web -I sb3_sparse/runtime/backends/c -Wall -Wl,--no-entry -Wl,--strip-all \
		-Wl,--export=__heap_base sb3_sparse/export/web/kernel.c -o $(KERNEL)

doc: $(READY)
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build build dist logs
