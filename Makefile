# Every target sets up .venv first, if it is not there yet: see tools/bootstrap.py.
#   EXTRA=cpu|gpu      which MXNet (default: gpu where nvidia-smi answers)
#   PYTHON=python3.12  which Python (default: one from 3.10 to 3.13 that is found)
#   TESTS=tests/data   which tests (default: all)

PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10)
RUN := .venv/bin/python -m
GET_DATA = @$(RUN) d2lres data fashion-mnist || true # the lessons do with the sample, too
TESTS := tests
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
, := ,

# A kernel takes its inline figures from its own default, not from the caller's shell.
unexport MPLBACKEND
# Images of Docker often set it: each of many processes would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

# In what `make bundle` made, all that would be fetched is there.
ifneq ($(wildcard offline),)
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(CURDIR)/offline/wheels
export UV_OFFLINE := 1
export UV_FIND_LINKS := $(CURDIR)/offline/wheels
export D2LRES_DATA ?= $(CURDIR)/offline/data
endif

.DEFAULT_GOAL := help
.PHONY: help setup lab update run data fashion-mnist doctor test test-quick test-browser test-faults test-pythons test-peers test-gpu notebooks book slides bundle test-bundle catalogues bench readme lint format fuzz audit lock clean

help: ## say what the targets do
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'
	@echo "EXTRA=cpu|gpu chooses MXNet, PYTHON=python3.12 the Python; both are chosen for you."

.DEFAULT:
	@echo "make: there is no target '$@'; 'make help' lists those there are." >&2; exit 2

setup: ## build .venv (every other target does it, once)
	@for python in $(PYTHONS); do \
	  if "$$python" -c "" 2>/dev/null; then exec "$$python" tools/bootstrap.py; fi; \
	done; \
	echo "d2lres: $(PYTHONS): not one of these runs; install Python 3.12 and call make again." >&2; \
	exit 1

# tools/lab has the settings of JupyterLab. PATH is for its terminal and for !python in a cell.
lab: setup ## get the data, copy the lessons into lessons/ and open JupyterLab on the copies
	$(GET_DATA)
	@$(RUN) d2lres lesson copy
	PATH="$(CURDIR)/.venv/bin:$$PATH" JUPYTER_CONFIG_PATH="$(CURDIR)/tools/lab" \
	  JUPYTER_PATH="$(CURDIR)/tools/lab" $(RUN) jupyterlab

update: ## get what is new in the course, and keep what you did in lessons/
	@if git rev-parse --quiet --verify @{upstream} >/dev/null 2>&1; then git pull --ff-only; fi
	@$(MAKE) --no-print-directory setup
	@$(RUN) d2lres lesson update

run: setup ## get the data and train the main lesson's ResNet-18, without a browser
	$(GET_DATA)
	D2LRES_SCALE=$(or $(D2LRES_SCALE),lesson) $(RUN) d2lres run

data: setup ## get Fashion-MNIST and CIFAR (340 MB), or say where they were found
	@$(RUN) d2lres data

fashion-mnist: setup ## get Fashion-MNIST, or say where it was found
	@$(RUN) d2lres data fashion-mnist

doctor: setup ## say what machine this is and whether MXNet works on it
	@$(RUN) d2lres doctor

# The browser is the system's; what drives it is got where there is one.
CHROMIUM = $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
NO_BROWSER := tests in a browser are left out: to run them, install Chromium (sudo apt install chromium)

test: setup ## run every test: the library's and every notebook, cell by cell
	@$(if $(CHROMIUM),$(MAKE) --no-print-directory .venv/browser || true,echo "$(NO_BROWSER)")
	D2LRES_SCALE=quick $(RUN) pytest tests notebooks --nbval --nbval-current-env \
	  --nbval-cell-timeout=300 --nbval-sanitize-with=tests/nbval_sanitize.cfg

test-quick: setup ## run the library's tests only, as you work
	D2LRES_SCALE=quick $(RUN) pytest -p no:nbval --dist worksteal --ignore=tests/browser -m "not faults and not slow" $(TESTS)

test-browser: setup .venv/browser ## open, run, stop and reset lessons in JupyterLab in Chromium
	$(RUN) pytest -n0 tests/browser

.venv/browser: requirements-browser.lock | setup
	.venv/bin/uv --quiet pip install --python=.venv/bin/python $(LOCKED)=$<
	touch $@

test-faults: setup ## break what can break, thousands of times, and record what was survived
	$(RUN) pytest tests -n0 -m "" --record-faults=results/faults.json

# Environments of their own, under .venvs/. pyenv's Pythons are found behind dead shims, too.
ON_EACH := on-3.10 on-3.11 on-3.12 on-3.13
.PHONY: $(ON_EACH) on-pins
test-pythons: export PATH := $(PATH)$(subst $() ,,$(patsubst %,:%,$(wildcard $(HOME)/.pyenv/versions/3.*/bin)))
test-pythons test-gpu: export UV_PYTHON_DOWNLOADS := never
INSTALL = .venv/bin/uv --quiet pip install --python=.venvs/$@
LOCKED := --no-deps --require-hashes --only-binary=:all: --requirement
PROJECT := --no-deps --no-build-isolation --editable .

test-pythons: $(ON_EACH) on-pins ## run the library's tests on every Python from 3.10 to 3.13, and with NumPy 1.23

define try # (PYTHON, HOW TO INSTALL EVERYTHING)
@if ! .venv/bin/uv python find $(1) >/dev/null 2>&1; then echo "Python $(1) is not found: skipped"; \
else set -ex; \
  .venv/bin/uv --quiet venv --clear --python=$(1) .venvs/$@; \
  $(2); \
  .venvs/$@/bin/python -c "import mxnet, numpy, sys; print(sys.version, 'NumPy', numpy.__version__)"; \
  D2LRES_SCALE=quick .venvs/$@/bin/python -m pytest $(TESTS); \
fi
endef

$(ON_EACH): on-%: setup
	$(call try,$*,$(INSTALL) $(LOCKED)=requirements-cpu.lock; $(INSTALL) $(PROJECT))

# MXNet's and d2l's own pins, without our overrides, on the last Python that has wheels for them.
on-pins: setup
	$(call try,3.11,$(INSTALL) --no-config --editable '.[cpu$(,)onnx$(,)dev]'; .venv/bin/uv pip check --python=.venvs/$@)

test-peers: setup ## compare MXNet's tests (MXNET_TESTS=folder) and the book's cells (BOOK=clone) with old Python's
	.venv/bin/python tests/peers/peers.py "$(MXNET_TESTS)" "$(BOOK)"

test-gpu: setup ## check the GPU's MXNet as far as the driver, in whose place gcc makes a stub (gets 2 GB)
	.venv/bin/uv --quiet venv --clear --python=.venv/bin/python .venvs/$@
	$(INSTALL) $(LOCKED)=requirements-gpu.lock
	$(INSTALL) $(PROJECT)
	.venvs/$@/bin/python tests/driver/check_gpu.py 2>&1 | grep "needs NVIDIA's driver"
	gcc -shared -fPIC -o .venvs/$@/libcuda.so.1 tests/driver/libcuda.c
	LD_LIBRARY_PATH=.venvs/$@ .venvs/$@/bin/python tests/driver/check_gpu.py

notebooks: setup data ## run every notebook at scale lesson and save it with its outputs
	rm -rf out/checkpoints
	D2LRES_SCALE=lesson $(RUN) nbconvert --to=notebook --inplace --execute \
	  --ExecutePreprocessor.record_timing=False $(NOTEBOOKS)

# What the site is made with, for `make book` and `make slides` only: no environment, but a folder
# that they have Python look into first.
SITE := PYTHONPATH=.site-packages .venv/bin/python

.site-packages/installed: requirements-site.lock .venv/stamp.json
	rm -rf .site-packages
	.venv/bin/uv --quiet pip install --python=.venv/bin/python --target=.site-packages $(LOCKED)=$<
	touch $@

.venv/stamp.json: | setup ;

book: .site-packages/installed ## make out/book, the course as a site that needs no network (LANGUAGE=de: by docs/locale/de)
	$(SITE) -m sphinx -W --keep-going --quiet -c docs -d out/doctrees $(if $(LANGUAGE),-D language=$(LANGUAGE)) . out/book

slides: .site-packages/installed ## make out/slides, a file of slides for each lesson
	$(SITE) tools/slides.py

bundle: book slides ## make an archive of all this, with packages and data, for a room without network
	-$(RUN) d2lres data
	.venv/bin/python tools/bundle.py

# unshare: an unprivileged user's network namespace, with a loopback device and no other.
test-bundle: ## set up what make bundle made, where there is no network and an empty home, and run lesson 3
	rm -rf out/unpacked && mkdir -p out/unpacked/home
	tar -xzf out/d2lres-*.tar.gz -C out/unpacked
	unshare --map-root-user --net sh -c 'ip link set lo up && env -i PATH="$$PATH" \
	  HOME="$(CURDIR)/out/unpacked/home" D2LRES_SCALE=quick $(MAKE) -C out/unpacked/d2lres run'

catalogues: .site-packages/installed ## gather the site's sentences in docs/locale for LANGUAGE=de to translate
	$(SITE) -m sphinx --quiet -b gettext -c docs -d out/doctrees . out/catalogues
	$(SITE) -m sphinx_intl update --pot-dir=out/catalogues --locale-dir=docs/locale \
	  --language=$(or $(LANGUAGE),$(error say which language: make catalogues LANGUAGE=de))

bench: setup $(if $(filter torch,$(PEERS)),.venv-torch/installed) ## measure the speed beside others' (PEERS=torch: also PyTorch's)
	$(GET_DATA)
	.venv/bin/python benchmarks/bench.py $(if $(PEERS),--peers $(PEERS))

.venv-torch/installed: | setup ## an environment of its own, so that nothing of PyTorch's is seen by MXNet
	.venv/bin/python -m venv --clear .venv-torch
	.venv-torch/bin/python -m pip install --quiet torch==2.13.0 torchvision==0.28.0 numpy
	touch $@

readme: setup ## write what the records say into results/README.md and README.md
	.venv/bin/python tools/readme.py

lint: setup ## check style, formatting and who imports whom
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	.venv/bin/lint-imports --no-logo

format: setup ## put style and formatting right
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

FUZZ_SECONDS ?= 120

# In an environment of its own. atheris has wheels for Linux; the last for Python 3.10 is an old one.
fuzz: setup ## search for bytes that the readers of files fail on (FUZZ_SECONDS=120 for each reader)
	for reader in idx cifar10 cifar100 archive picture; do \
	  mkdir -p out/fuzz/$$reader && \
	  .venv/bin/uv run --quiet --no-project --python=.venv/bin/python --with='atheris>=2.3' \
	    --with=numpy --with=pillow --with=lazy-loader tests/fuzz.py $$reader \
	    -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -max_len=16384 \
	    -print_final_stats=1 -artifact_prefix=out/fuzz/ out/fuzz/$$reader || exit 1; \
	done

# --strict: what could not be looked up is not said to be well.
audit: setup ## ask the Python Packaging Advisory Database about every locked version (see SECURITY.md)
	for extra in cpu gpu browser site; do \
	  .venv/bin/uv tool run --quiet pip-audit==2.10.1 --strict --require-hashes --disable-pip \
	    --requirement=requirements-$$extra.lock || exit 1; \
	done

# Versions that are locked and still fit stay as they are; delete the locks first to renew them all.
lock: .venv/bin/uv ## renew the locks from pyproject.toml
	for extra in cpu gpu; do \
	  .venv/bin/uv pip compile pyproject.toml --universal --python-version=3.10 \
	    --extra=$$extra --extra=onnx --extra=dev --generate-hashes --quiet \
	    --custom-compile-command="make lock" --output-file=requirements-$$extra.lock || exit 1; \
	done
	.venv/bin/uv pip compile --group=browser --universal --python-version=3.10 --generate-hashes \
	  --constraint=requirements-cpu.lock --quiet --custom-compile-command="make lock" \
	  --output-file=requirements-browser.lock
	.venv/bin/uv pip compile --group=site --universal --python-version=3.10 --generate-hashes \
	  --quiet --custom-compile-command="make lock" --output-file=requirements-site.lock

.venv/bin/uv:
	@$(MAKE) setup

clean: ## remove .venv, out/ and caches (the downloaded data stays)
	rm -rf .venv .venvs .venv-torch .site-packages out dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
