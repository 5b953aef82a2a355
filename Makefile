# `make help` tells what there is. Every target runs in a virtual environment of its own, made here when it
# is missing and brought up to date when pyproject.toml or its constraints change.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-with-$(notdir $(PYTHON))
RAY_INSTALLED := $(INSTALLED)-and-ray
# Tests wait for other processes a third of their time: four at once keep two cores busy.
WORKERS ?= 4

# Without bytecode, each of the many processes that the tests start compiles the package again.
unexport PYTHONDONTWRITEBYTECODE

# Airflow 2.11 has libraries that are too old for the service: the tests there take it from the other environment.
OLDEST := .venv-airflow-2.11
OLDEST_PYTHON ?= $(PYTHON)
OLDEST_INSTALLED := $(OLDEST)/.installed-with-$(notdir $(OLDEST_PYTHON))

# Torch is installed by itself, by pip: resolved with the rest it would bring its CUDA libraries, gigabytes of them.
FINETUNE := .venv-finetune
FINETUNE_INSTALLED := $(FINETUNE)/.installed-with-$(notdir $(PYTHON))

comma := ,
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --no-annotate --no-emit-index-url \
    --custom-compile-command 'make constraints'

# $(call install,the Python,the virtual environment,its constraints,what)
define install
	@test -e $@ || $(1) -m venv --clear $(2)
	@echo "Installing into $(2) ..."
	@$(2)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(2)/bin/uv pip install --quiet --python $(2)/bin/python --compile-bytecode \
	    --constraints $(3) --build-constraints constraints.txt --editable $(4)
	@touch $@
endef

# A checkout is run from its own folder, and a run that is interrupted leaves no half-made target.
.DELETE_ON_ERROR:
.PHONY: all help demo console examples test test-clients chaos oldest oldest-examples cluster lint docs bench stubs constraints clean

all: $(INSTALLED) help

help: ## this list
	@echo "make TARGET [PYTHON=python3.12] [VENV=.venv]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1 \2/p' $(MAKEFILE_LIST) | awk '{n=$$1; $$1=""; printf "  %-16s%s\n", n, $$0}'

demo: $(INSTALLED) ## find defects, from labelled images to a picture sheet (IMAGES=dir with normal/ and anomaly/ for yours)
	@$(BIN)/python -m example_dags.demo $(if $(IMAGES),--images '$(IMAGES)')

console: $(INSTALLED) ## a service with the demo's data: prints the URL of its console and the key (IMAGES=dir for yours)
	@$(BIN)/python -m example_dags.demo.console $(if $(IMAGES),--images '$(IMAGES)')

examples: $(INSTALLED) ## the example DAGs of training, promoting and nightly batches, in a real Airflow
	@$(BIN)/python -m example_dags.demo.examples

test: $(INSTALLED) ## the tests, against the real service on SQLite and PostgreSQL (ARGS='-k token' for some)
	$(BIN)/python -m pytest -n $(WORKERS) --ignore=tests/clients --ignore=tests/chaos --ignore=tests/server/cluster $(ARGS)

test-clients: $(INSTALLED) ## boto3, the AWS CLI, SDKs and type stubs of others, old and new, each in an environment of its own
	$(BIN)/python -m pytest $(or $(ARGS),tests/clients)

chaos: $(INSTALLED) ## seeded schedules of kills and lost answers in a real Airflow (SCHEDULES=300 SEED=1)
	$(BIN)/python -m pytest tests/chaos --schedules=$(or $(SCHEDULES),10) --seed=$(or $(SEED),1) $(ARGS)

oldest: export LOOKOUTVISION_TEST_SERVICE := $(abspath $(BIN)/lookoutvision)
oldest: $(INSTALLED) $(OLDEST_INSTALLED) ## the provider's tests on the oldest Airflow and Amazon provider
	$(OLDEST)/bin/python -m pytest -n $(WORKERS) $(or $(ARGS),tests/model tests/provider tests/testing)

oldest-examples: export LOOKOUTVISION_TEST_SERVICE := $(abspath $(BIN)/lookoutvision)
oldest-examples: $(INSTALLED) $(OLDEST_INSTALLED) ## the example DAGs on the oldest Airflow and Amazon provider
	@$(OLDEST)/bin/python -m example_dags.demo.examples

cluster: export LOOKOUTVISION_TEST_CLUSTER := 1
cluster: $(RAY_INSTALLED) ## the tests on a Ray cluster of three nodes on this machine; installs Ray beside the rest
	$(BIN)/python -m pytest $(or $(ARGS),tests/server/cluster)

.PHONY: ray
ray: $(RAY_INSTALLED)

.PHONY: thorough
thorough: $(FINETUNE_INSTALLED) ## the tests of the effort "thorough", with torch in an environment of its own
	$(FINETUNE)/bin/python -m pytest $(or $(ARGS),tests/engine/test_thorough.py)

lint: $(INSTALLED) ## style, types and the import law
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED) ## the documents as HTML, in build/docs; a warning is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

bench: $(INSTALLED) ## requests a second and CPU a request, beside a bare route and a moto server
	@$(BIN)/python -m bench.service

constraints: $(INSTALLED) ## write both constraints anew, with the newest versions that pyproject.toml admits
	$(COMPILE) --universal --all-extras --group dev --output-file constraints.txt pyproject.toml
	$(COMPILE) --extra deferrable --group airflow-2 --output-file constraints-airflow-2.11.txt pyproject.toml

# An old compiler, on purpose: what newer ones make refuses to run with a protobuf that is much newer than they are.
stubs: ## the agent's messages in Python, from airflow_provider_lookoutvision/edge/edge_agent.proto
	$(PYTHON) -m venv --clear .venv-stubs
	.venv-stubs/bin/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.62.3 'setuptools<81'
	cd airflow_provider_lookoutvision/edge && ../../.venv-stubs/bin/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. edge_agent.proto

clean: ## remove the virtual environment, what was built, and the tools' caches
	rm -rf $(VENV) $(OLDEST) .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed, and $(PYTHON) is not: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	    { echo "$(PYTHON) can't make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(call install,$(PYTHON),$(VENV),constraints.txt,'.[server$(comma)engine$(comma)edge$(comma)moving$(comma)postgres$(comma)deferrable]' --group dev)

$(RAY_INSTALLED): $(INSTALLED)
	@echo "Installing Ray into $(VENV) ..."
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraints constraints.txt --editable '.[ray]'
	@touch $@

$(OLDEST_INSTALLED): pyproject.toml constraints-airflow-2.11.txt
	@$(OLDEST_PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || \
	    { echo "Airflow 2.11 needs a Python before 3.13: make oldest OLDEST_PYTHON=python3.12" >&2; exit 1; }
	$(call install,$(OLDEST_PYTHON),$(OLDEST),constraints-airflow-2.11.txt,'.[deferrable]' --group airflow-2)

$(FINETUNE_INSTALLED): pyproject.toml constraints.txt
	$(call install,$(PYTHON),$(FINETUNE),constraints.txt,'.[server$(comma)engine$(comma)postgres]' --group test)
	@rm $@ && $(FINETUNE)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	@touch $@
