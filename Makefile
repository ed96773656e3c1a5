# The README's commands, most of them of `hrebasin`. Each builds the environment first when it is missing or stale.
PYTHON   ?= python3
SETTING  ?= sample
ORIGINAL ?= cifar10-sample
FAULTS   ?= --record figures/faults.jsonl --table figures/faults.md

ENV   := .venv
STAMP := $(ENV)/.complete
BIN   := $(ENV)/bin
# Where the user's cache cannot be written, as in containers with any user id, uv has one in the environment.
CACHES := $(or $(UV_CACHE_DIR),$(XDG_CACHE_HOME),$(HOME)/.cache)
ifneq ($(shell mkdir -p "$(CACHES)" 2>/dev/null && test -w "$(CACHES)" && echo writable),writable)
export UV_CACHE_DIR := $(ENV)/.cache
export PIP_NO_CACHE_DIR := 1
endif
# A command starts several processes, each of which would compile the library again.
unexport PYTHONDONTWRITEBYTECODE
ADDED := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.txt --editable

# Its paths are absolute: one that came here with a copied or moved checkout is built anew, one that is linked is not.
HOME_OF_ENV := $(shell test -L $(ENV) && echo "$$(pwd -P)/lib" || cat $(ENV)/lib/python*/site-packages/__editable__.hrebasin-*.pth 2>/dev/null)
ifneq ($(HOME_OF_ENV),$(CURDIR)/lib)
.PHONY: $(STAMP)
endif

ifeq ($(origin PROFILE),command line)
$(error what was PROFILE= is SETTING= now, and its value cpu is plain)
endif

# What is given reaches the commands through the environment: quotes, spaces, $$ and # in it stay what they are.
GIVEN := SETTING RUN DATASET DEVICE GROUPS FIRST PRECISION PART ASK IMAGES ORIGINAL EXECUTOR CORES
$(foreach name,$(GIVEN),$(eval export given_$(name) := $$(value $(name))))
given = $${given_$2:+$1"$$given_$2"}
values := setting="$$given_SETTING" $(call given,run=,RUN) $(call given,dataset=,DATASET) $(call given,device=,DEVICE) \
  $(call given,groups=,GROUPS) $(call given,first=,FIRST) $(call given,precision=,PRECISION) $(call given,ask=,ASK)
where := $(call given,--workflow-profile config/,EXECUTOR) $(call given,--cores ,CORES)
folder := "data/runs/$${given_RUN:-$$given_SETTING}"
run = $(BIN)/hrebasin run $(where) $1 $(values) $(SET) $(if $(SNAKEMAKE),-- $(SNAKEMAKE))

.PHONY: help paper questions dry-run test faults figures docs publish versions verify statistics bench lab test-lab lint format \
  lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

paper: $(STAMP)  ## train, merge, attack, measure, draw: SETTING= RUN= DATASET= DEVICE= GROUPS= FIRST= PRECISION= PART= SET="key=value ..." EXECUTOR= SNAKEMAKE="its options"
	$(call run,$(call given,--part ,PART))

questions: $(STAMP)  ## ask the networks of a run what the paper leaves open: ASK="controls strong ..." and the same
	$(call run,--part questions)

dry-run: $(STAMP)  ## what `make paper` would run
	$(call run,--dry-run)

test: $(STAMP)  ## every test but those in a browser, on a GPU and of real runs that are stopped
	$(BIN)/python -m pytest -n 2 --dist worksteal

faults: $(STAMP)  ## stop, damage and overload the tiny setting, for hours, going on where that was stopped: FAULTS="--kills 2 --interrupts 1 --parallel 1"
	$(BIN)/python -m pytest -n 0 -m faults tests/faults
	$(BIN)/python tests/faults/run.py $(FAULTS)

figures: $(STAMP)  ## redraw figures/, and the README's numbers, from data/published/, without weights or GPU
	$(BIN)/hrebasin figures

docs: $(STAMP)  ## the library's reference from its docstrings, build/docs/index.html
	$(ADDED) '.[docs]'
	$(BIN)/pdoc --docformat google --no-show-source --output-directory build/docs hrebasin

publish: $(STAMP)  ## copy the data sets of a finished run to data/published/<setting>/: SETTING= RUN= IMAGES="what they are" ADD=1 (to its groups) REPLACE=1 (though some go)
	$(BIN)/hrebasin publish $(folder) --images "$$given_IMAGES" $(if $(ADD),--add) $(if $(REPLACE),--replace)

versions: $(STAMP)  ## a run's networks on two versions of its test images: SETTING= RUN= DATASET=(those it was trained on) ORIGINAL=
	@test -n "$$given_DATASET" || { echo 'make versions needs DATASET=, the images that the run was trained on' >&2; exit 2; }
	$(BIN)/hrebasin notebook notebooks/07_versions.ipynb $(folder)/notebooks/07_versions.ipynb --setting "$$given_SETTING" \
	  -r run_folder $(folder) -r dataset "$$given_DATASET" -r other "$$given_ORIGINAL"

verify: $(STAMP)  ## published data sets and figures against their SHA-256 sums, the ledger against the data
	$(BIN)/hrebasin verify

statistics: $(STAMP)  ## how often the ledger errs, covers and finds, on made-up results: half an hour
	$(BIN)/python tests/calibration.py 200 figures/calibration.md

bench: $(STAMP)  ## side by side with the alternatives, DATASET=; a quarter to half an hour
	$(ADDED) '.[bench]'
	$(BIN)/hrebasin bench $(call given,--dataset ,DATASET)

lab: $(STAMP)  ## JupyterLab on the notebooks, on this machine only: LAB="--no-browser --port=8888"
	$(BIN)/hrebasin lab $(LAB)

test-lab: $(STAMP)  ## the notebooks in JupyterLab in a real browser, Chromium; pictures go to data/runs/lab
	$(ADDED) '.[lab]'
	$(BIN)/python -m pytest -n 0 -m lab tests/study/running/test_browser.py

lint: $(STAMP)  ## ruff, snakefmt, the order of the library's rooms and the declared dependencies, as in CI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile
	$(BIN)/lint-imports
	$(BIN)/deptry .

format: $(STAMP)  ## let ruff and snakefmt rewrite what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile

lock: $(STAMP)  ## resolve pyproject.toml anew into requirements.txt and environment.yml
	$(BIN)/uv pip compile --quiet pyproject.toml --extra study --extra dev --extra slurm --universal --generate-hashes \
	  --python-version 3.11 --no-header --upgrade -o requirements.txt
	$(MAKE) --no-print-directory environment.yml

environment.yml: requirements.txt
	@sed -n '1,/- pip:/p' environment.yml > environment.tmp
	@echo '      - --editable .' >> environment.tmp
	@sed -nE 's/^([a-z0-9][^ ]*==[^\\]*[^\\ ]) *\\?$$/      - "\1"/p' requirements.txt >> environment.tmp
	@mv environment.tmp environment.yml

clean:  ## remove the environment; results stay
	rm -rf $(ENV)

$(STAMP): requirements.txt pyproject.toml
	@test ! -L $(ENV) || { echo "error: $(ENV) is a link to another environment, which would be cleared; build it there" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	  f"Python >= 3.11 is needed, $(PYTHON) is {v.major}.{v.minor}; name another one: make PYTHON=...")'
	$(PYTHON) -m venv --clear $(ENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
