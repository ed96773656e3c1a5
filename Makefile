# The README's commands. Each builds the environment first when it is missing or stale.
PYTHON  ?= python3
PROFILE ?= sample
DATASET ?=
DEVICE  ?=
RUN     ?=
GROUPS  ?=
FIRST   ?=
ASK     ?=
ADD     ?=
IMAGES  ?=
ORIGINAL ?= cifar10-sample
PRECISION ?=
PART    ?=
SET     ?=
# For `make offline`: Python and packages of the machine without internet
TARGET_PYTHON ?= 3.12
HAVE    ?=
LAB     ?=
FAULTS  ?= --record figures/faults.jsonl --table figures/faults.md
CORES   ?=
# Where else jobs run: config/$(EXECUTOR) is Snakemake's profile of it. SNAKEMAKE: more options of Snakemake
EXECUTOR ?=
SNAKEMAKE ?=

ENV   := .venv
STAMP := $(ENV)/.complete
BIN   := $(ENV)/bin

space := $(subst ,, )
comma := ,

overrides := profile=$(PROFILE) $(if $(RUN),run='$(RUN)') \
  $(if $(DATASET),dataset='$(DATASET)') $(if $(DEVICE),device=$(DEVICE)) $(if $(GROUPS),groups=$(GROUPS)) \
  $(if $(FIRST),first=$(FIRST)) $(if $(PRECISION),precision=$(PRECISION)) \
  $(if $(ASK),ask=$(subst $(space),$(comma),$(strip $(ASK)))) $(SET)

where := $(if $(EXECUTOR),--workflow-profile config/$(EXECUTOR)) $(if $(CORES),--cores $(CORES))
more := $(if $(SNAKEMAKE),-- $(SNAKEMAKE))
run_folder := data/runs/$(or $(RUN),$(PROFILE))

# What a run without JupyterLab imports
BATCH := filelock foolbox h5netcdf ipykernel jinja2 matplotlib nbformat numba papermill pillow psutil pyyaml safetensors \
  scipy snakemake snakemake-executor-plugin-slurm threadpoolctl torch torchvision tqdm traitlets xarray

.PHONY: help paper questions dry-run test faults figures docs publish versions verify statistics bench rehearse offline lab test-lab \
  lint format lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

paper: $(STAMP)  ## train, merge, attack, measure, draw: PROFILE= RUN= DATASET= DEVICE= GROUPS= FIRST= PRECISION= PART= SET="key=value ..." EXECUTOR=
	$(BIN)/python -m hrebasin.study.running.workflow $(where) $(if $(PART),--part $(PART)) $(overrides) $(more)

questions: $(STAMP)  ## ask the networks of a run what the paper leaves open: ASK="controls strong ..." and the same
	$(BIN)/python -m hrebasin.study.running.workflow $(where) --part questions $(overrides) $(more)

dry-run: $(STAMP)  ## what `make paper` would run
	$(BIN)/python -m hrebasin.study.running.workflow $(where) --dry-run $(overrides) $(more)

test: $(STAMP)  ## every test but those in a browser and on a GPU, under 6 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist worksteal

faults: $(STAMP)  ## stop, damage and overload the tiny profile, for hours, going on where that was stopped: FAULTS="--kills 2 --interrupts 1 --parallel 1"
	$(BIN)/python tests/faults/run.py $(FAULTS)

figures: $(STAMP)  ## redraw figures/, and the README's numbers, from data/published/, without weights or GPU
	$(BIN)/python -m hrebasin.study.publishing.readme

docs: $(STAMP)  ## the library's reference from its docstrings, build/docs/index.html
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.txt --editable '.[docs]'
	$(BIN)/pdoc --docformat google --no-show-source --output-directory build/docs hrebasin

publish: $(STAMP)  ## copy the data sets of a finished run to data/published/: PROFILE= RUN= IMAGES="what they are" ADD=1 (to its groups)
	$(BIN)/python -m hrebasin.study.publishing.page publish $(run_folder) data/published --images '$(IMAGES)' $(if $(ADD),--add)

versions: $(STAMP)  ## a run's networks on two versions of its test images: PROFILE= RUN= DATASET=(those it was trained on) ORIGINAL=
	@test -n '$(DATASET)' || { echo 'make versions needs DATASET=, the images that the run was trained on' >&2; exit 2; }
	$(BIN)/python -m hrebasin.study.running.notebook_runner --profile $(PROFILE) notebooks/07_versions.ipynb $(run_folder)/notebooks/07_versions.ipynb \
	  '{"run_folder": "$(run_folder)", "dataset": "$(DATASET)", "other": "$(ORIGINAL)"}'

verify: $(STAMP)  ## published data sets and figures against their SHA-256 sums, the ledger against the data
	$(BIN)/python -m hrebasin.study.publishing.verify data/published figures

statistics: $(STAMP)  ## how often the ledger errs, covers and finds, on made-up results: 20 minutes on 2 cores
	$(BIN)/python tests/calibration.py 1000 figures/calibration.md

bench: $(STAMP)  ## side by side with the alternatives, DATASET=; a quarter to half an hour
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.txt --editable '.[bench]'
	$(BIN)/python -m hrebasin.study.running.notebook_runner notebooks/90_benchmarks.ipynb data/runs/benchmarks/90_benchmarks.ipynb \
	  '{$(if $(DATASET),"dataset": "$(DATASET)")}'

rehearse: $(STAMP)  ## the parts of the paper profile at 1/100 of its scale: DATASET= DEVICE=
	for part in train merge attack measure publish; do \
	  $(BIN)/python -m hrebasin.study.running.workflow --part $$part --publish-to data/runs/rehearsal/published \
	  profile=paper run=rehearsal dataset='$(or $(DATASET),cifar10-sample)' device=$(or $(DEVICE),cpu) groups=1 batch_size=50 \
	  train_images=500 test_images=500 attacked_images=100 bounded_images=5 $(SET) || exit; done

offline: $(STAMP)  ## offline/, what a run imports, for a Linux machine without internet: TARGET_PYTHON= HAVE="torch ..."
	rm -rf offline && mkdir offline
	printf '%s\n' $(BATCH) | $(BIN)/uv pip compile --quiet - --constraint requirements.txt --no-header --no-annotate \
	  --python-version $(TARGET_PYTHON) --python-platform x86_64-manylinux_2_28 \
	  | grep -vxE '($(subst $(space),|,$(strip $(HAVE) $(if $(filter torch,$(HAVE)),nvidia-.*) none)))==.*' > offline/needed.txt
	$(BIN)/uv pip install --quiet --no-deps --target offline --python-version $(TARGET_PYTHON) \
	  --python-platform x86_64-manylinux_2_28 --requirement offline/needed.txt .
	$(BIN)/python -c 'from hrebasin.study.records import Clock; c = Clock(); print(c.commit + "\nchanged" * c.dirty)' \
	  > offline/hrebasin/commit.txt
	@rm -rf build && du -sh offline

lab: $(STAMP)  ## JupyterLab on the notebooks, on this machine only: LAB="--no-browser --port=8888"
	$(BIN)/python -m hrebasin.study.running.lab $(LAB)

test-lab: $(STAMP)  ## the notebooks in JupyterLab in a real browser, Chromium; pictures go to data/runs/lab
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.txt --editable '.[lab]'
	$(BIN)/python -m pytest -n 0 -m lab tests/test_browser.py

lint: $(STAMP)  ## ruff and snakefmt, as in CI
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile

format: $(STAMP)  ## let ruff and snakefmt rewrite what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile

lock: $(STAMP)  ## resolve pyproject.toml anew into requirements.txt and environment.yml
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --extra slurm --universal --generate-hashes \
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
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	  f"Python >= 3.11 is needed, $(PYTHON) is {v.major}.{v.minor}; name another one: make PYTHON=...")'
	$(PYTHON) -m venv --clear $(ENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
