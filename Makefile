# `make help` tells what there is. Every target runs in a virtual environment of its own, made here when it
# is missing and brought up to date when pyproject.toml or constraints.txt changes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-with-$(notdir $(PYTHON))

# A checkout is run from its own folder, and a run that is interrupted leaves no half-made target.
.DELETE_ON_ERROR:
.PHONY: all help demo examples test lint docs bench constraints clean

all: $(INSTALLED) help

help: ## this list
	@echo "make TARGET [PYTHON=python3.12] [VENV=.venv]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1 \2/p' $(MAKEFILE_LIST) | awk '{n=$$1; $$1=""; printf "  %-12s%s\n", n, $$0}'

demo: $(INSTALLED) ## find defects, from labelled images to a picture sheet (IMAGES=dir with normal/ and anomaly/ for yours)
	@$(BIN)/python -m example_dags.demo $(if $(IMAGES),--images '$(IMAGES)')

examples: $(INSTALLED) ## the example DAGs of training, promoting and nightly batches, in a real Airflow
	@$(BIN)/python -m example_dags.demo.examples

test: $(INSTALLED) ## the tests, against the real service on SQLite and PostgreSQL (ARGS='-k token' for some)
	$(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED) ## style, types and the import law
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED) ## the documents as HTML, in build/docs; a warning is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

bench: $(INSTALLED) ## requests a second and CPU a request, beside a bare route and a moto server
	@$(BIN)/python -m bench.service

constraints: $(INSTALLED) ## write constraints.txt anew, with the newest versions that pyproject.toml admits
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --group dev \
	    --no-annotate --no-emit-index-url --custom-compile-command 'make constraints' \
	    --output-file constraints.txt pyproject.toml

clean: ## remove the virtual environment, what was built, and the tools' caches
	rm -rf $(VENV) .venv-boto3-* .venv-anomalib-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed, and $(PYTHON) is not: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	    { echo "$(PYTHON) can't make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
	    --constraints constraints.txt --build-constraints constraints.txt \
	    --editable '.[server,engine,postgres,deferrable]' --group dev
	@touch $@
