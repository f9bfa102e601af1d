# make demo: train on the packaged catalog and print the metrics. make search: index it and open the page.
# make test: format, lint, types, layers, tests. Both make .venv first, and can be run again.

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
STORES := $(VENV)/stores
STORE_TESTS := tests/test_object_stores.py tests/runs/test_run_store.py tests/cli/test_evaluation_stores.py tests/test_output_urls.py
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install demo search test lint lock clean

help:
	@echo "make install install into $(VENV)"
	@echo "make demo    install into $(VENV), train on the packaged catalog, evaluate (runs/demo)"
	@echo "make search  train the demo if there is no run, index its catalog, serve the search page"
	@echo "make test    install into $(VENV), lint, check types and layers, run the tests"
	@echo "make lint    the checks of make test without the tests"
	@echo "make lock    regenerate requirements.txt from pyproject.toml"
	@echo "make clean   remove $(VENV) and every cache; runs/ stays"
	@echo "Another Python: make test PYTHON=python3.12 VENV=.venv312"

install: $(INSTALLED)

demo: $(INSTALLED)
	@echo "==> training: runs/demo"
	@$(BIN)/python train.py --config configs/demo.py
	@echo "==> evaluating: runs/demo"
	@$(BIN)/python eval.py runs/demo

search: $(INSTALLED)
	@test -d runs/demo/checkpoints/best || { \
	  echo "==> training: runs/demo"; $(BIN)/python train.py --config configs/demo.py; }
	@echo "==> indexing: runs/demo/index"
	@$(BIN)/python search.py index runs/demo "" runs/demo/index
	@$(BIN)/python search.py serve runs/demo/index

test: lint $(STORES)/.installed
	@echo "==> tests"
	@$(BIN)/python -m pytest -n 2 --dist loadfile
	@echo "==> tests of object stores, against local servers"
	@$(STORES)/bin/python -m pytest -n 2 --dist loadfile $(STORE_TESTS)

lint: $(INSTALLED)
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "==> mypy"
	@$(BIN)/mypy
	@echo "==> import-linter"
	@$(BIN)/lint-imports

# --no-compile halves the time: Python compiles modules on import. The stamp is written last, so that the next make
# repeats an interrupted install.
$(INSTALLED): requirements.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: make_jax needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "       Name another one: make PYTHON=python3.12" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "==> creating $(VENV)"; rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@echo "==> installing requirements.txt into $(VENV)"
	@$(PIP) install --no-compile -r requirements.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# An environment of its own, on top of $(VENV): s3fs needs an older python-dateutil than requirements.txt has.
$(STORES)/.installed: $(INSTALLED)
	@echo "==> installing s3fs, gcsfs and local servers of both kinds into $(STORES)"
	@$(BIN)/python -m venv $(STORES)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  $$($(STORES)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth
	@$(STORES)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile s3fs 'moto[s3]' flask flask-cors \
	  gcsfs gcp-storage-emulator
	@touch $@

lock: $(INSTALLED)
	@$(PIP) install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra serve --universal --python-version 3.11 --upgrade --quiet \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links > $(VENV)/lock.txt
	@{ sed -n '/^#/p' requirements.txt; \
	   sed -e "/== 'win32'/d" -e "/== 'emscripten'/d" -e '/python_full_version/!s/ ;.*//' $(VENV)/lock.txt; \
	 } > $(VENV)/requirements.txt
	@mv $(VENV)/requirements.txt requirements.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
