# The commands that people and CI run. `make help` lists them; each creates the environment it needs.

PYTHON ?= python3
SERVICE_PYTHONS ?= 3.11 3.12 3.13
# Processes that run the tests; 0 runs them in the one that was started, as a debugger needs it.
WORKERS ?= 2
# On Linux the plain package of torch is the CUDA build, several gigabytes in size. TORCH_INDEX is the
# address of an index with a smaller one; pytorch.org's install page names it under "CPU".
TORCH_INDEX ?=
ARGS ?=

VENV := .venv
SERVE_VENV := .venv-serve
DOCS_VENV := .venv-docs
TOOLS_VENV := .venv-tools
PIP := bin/python -m pip install -qq --disable-pip-version-check

# Tests on real corpora are skipped without them.
ifeq ($(NNPM_TEST_DATA),)
ifneq ($(wildcard ../shared/corpora/.),)
export NNPM_TEST_DATA := $(abspath ../shared/corpora)
endif
endif
# So are tests on a real pretrained encoder.
ifeq ($(NNPM_TEST_BACKBONE),)
ifneq ($(wildcard ../shared/pretrained/whisper-base/.),)
export NNPM_TEST_BACKBONE := $(abspath ../shared/pretrained/whisper-base)
endif
endif

# make networks, benchmark, benchmark-development, estimator
NETWORKS ?= runs/networks
PROTOCOL ?= P3
TABLES ?= all
RESULTS ?= benchmarks/results
ENCODER ?= $(firstword $(wildcard ../shared/pretrained/whisper-base) openai/whisper-base)

# make train
DATA ?= $(or $(NNPM_TEST_DATA),data)
CORPORA ?= ravdess nemo
CONFIG ?= training/configs/default.toml
RUN ?= runs/default
# The number of threads changes rounding, and training amplifies it: see docs/research/results.md.
THREADS ?= 2
BUNDLE ?= build/default-bundle

# Tests in several environments, one after the other also under `make -j`.
.NOTPARALLEL:
.PHONY: help serve test test-main check check-lint check-format check-types check-imports \
	check-security audit fuzz hostile schemathesis soak train bench bench-footprint bench-serving \
	bench-load bench-liveness bench-streams bench-adapting bench-long \
	bench-bulk bench-scale bench-registry bench-formats networks benchmark benchmark-development estimator charts picture \
	screenshots formats docs clean lock image image-release image-check monitoring-check kubernetes
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

serve: $(SERVE_VENV)/installed ## Start the service with the bundled model, adaptation included; ARGS="--port 9000"
	@$(SERVE_VENV)/bin/nnpm serve $(ARGS)

test: $(SERVICE_PYTHONS:%=test-smoke-%) test-main ## Run all tests; ARGS="-k name" selects some, WORKERS=0 uses one process

# The contracts of the service, adaptation included, in an environment without torch: a minute on each Python.
test-smoke-%: .venv-service-%/ready
	@$(call without_torch,-m smoke)

# All tests of the service that are quick, in the same environment: for a new Python or a new release.
test-service-%: .venv-service-%/ready
	@$(call without_torch,-m "not slow" -n $(WORKERS))

without_torch = if [ -e .venv-service-$*/installed ]; then \
	echo "The service without torch on Python $*:" && \
	.venv-service-$*/bin/python scripts/without_torch.py && \
	.venv-service-$*/bin/python -m pytest -q $(1) --doctest-modules nnpm/service nnpm/training/labelled \
		nnpm/training/plugins.py tests/service; \
	else echo "The service without torch on Python $*: SKIPPED, no such interpreter here."; fi

# Everything: unit, contract, doctests, real clips where there are corpora, train -> export -> serve.
test-main: $(VENV)/installed
	@$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal --doctest-modules \
		--cov --cov-report=term:skip-covered nnpm tests $(ARGS)

check: check-lint check-format check-types check-imports check-security ## Check lint, format, types, import rules and security

check-lint: $(VENV)/installed
	@$(VENV)/bin/ruff check

check-format: $(VENV)/installed
	@$(VENV)/bin/ruff format --check

check-types: $(VENV)/installed
	@$(VENV)/bin/mypy

check-imports: $(VENV)/installed
	@$(VENV)/bin/lint-imports

check-security: $(VENV)/installed
	@$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive service training

# --strict: a package that pypi.org cannot be asked about would pass otherwise.
audit: check-security ## Check code and locked requirements for vulnerabilities (needs pypi.org)
	@for lock in service service-media train build; do \
		$(VENV)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
			-r requirements/$$lock.txt || { echo "requirements/$$lock.txt: not clean, or pypi.org \
was not reached." >&2; exit 1; }; \
	done

fuzz: $(VENV)/fuzz ## Fuzz the decoder, archives and forms for 5 minutes; ARGS="--seconds 3600"
	@HOSTILE_CASES=1000000 $(VENV)/bin/python -m pytest -q tests/service/inference/test_hostile.py
	@$(VENV)/bin/python -m benchmarks.fuzz $(ARGS)

# Each test has a limit of time and memory: tests/conftest.py.
hostile: $(VENV)/installed ## Run every kind of input that may stop or mislead the service, each within limits
	@$(VENV)/bin/python -m pytest -q -m hostile tests $(ARGS)

EXAMPLES ?= 1000

schemathesis: $(VENV)/installed ## Send requests generated from the OpenAPI document; EXAMPLES=100 per route
	@SCHEMATHESIS_EXAMPLES=$(EXAMPLES) $(VENV)/bin/python -m pytest -q \
		tests/service/api/test_schemathesis.py $(ARGS)

soak: $(VENV)/installed ## Send 10,000 recordings; check memory, errors and idle load; ARGS="--clips 1500"
	@$(VENV)/bin/python -m benchmarks.soak $(ARGS)

train: $(VENV)/installed ## Train and export; DATA, CORPORA, CONFIG, RUN, BUNDLE; ARGS="--resume"
	$(VENV)/bin/nnpm train --corpora $(CORPORA) --data $(DATA) --config $(CONFIG) --out $(RUN) \
		--threads $(THREADS) $(ARGS)
	$(VENV)/bin/nnpm export $(RUN) --out $(BUNDLE)

bench: $(VENV)/installed ## Measure the cost of the bundled model (benchmarks/results/); ARGS="--peer conv.onnx"
	@OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.latency $(ARGS)

bench-footprint: $(VENV)/installed ## Measure start, first answer, memory and idle CPU of the service
	@$(VENV)/bin/python -m benchmarks.footprint

bench-serving: $(VENV)/installed ## Compare the service with other servers; ARGS="--peers DIR --venvs DIR"; needs wrk
	@$(VENV)/bin/python -m benchmarks.serving $(ARGS)

bench-load: $(VENV)/installed ## Measure the 99th percentile at 80 % load, over HTTP and without; needs wrk
	@$(VENV)/bin/python -m benchmarks.latency_under_load $(ARGS)

bench-liveness: $(VENV)/installed ## Time /health/live while 64 clients upload; needs wrk
	@$(VENV)/bin/python -m benchmarks.liveness $(ARGS)

bench-streams: $(VENV)/installed ## Measure the lag of 1 to 32 streams on two cores; DATA
	@$(VENV)/bin/python -m benchmarks.streaming --data $(DATA) $(ARGS)

bench-long: $(VENV)/installed ## Score a call of one hour on one core: speed, memory, music, silence; DATA, ARGS="--command-only"
	@$(VENV)/bin/python -m benchmarks.long_audio --data $(DATA) $(ARGS)

bench-calls: $(VENV)/installed ## Compare answers per turn of calls with those on the clips alone; DATA, ARGS="--jobs 2"
	@OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.calls --data $(DATA) --corpora ased banglaser crema \
		emodb emotiontts hindi nemo ravdess urdu --out calls $(ARGS)

detector: $(VENV)/installed ## Fit the rules that tell a voice from babble and breath; DATA
	@OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.fit_detector --data $(DATA) $(ARGS)

bench-detectors: $(VENV)/installed ## Measure what speech detection loses and takes; DATA, ARGS="--silero graph.onnx"
	@OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.detectors --data $(DATA) $(ARGS)

bench-bulk: $(VENV)/installed ## Time nnpm predict on folders of N, 2 N and 4 N clips; DATA
	@$(VENV)/bin/python -m benchmarks.bulk --data $(DATA) $(ARGS)

bench-scale: $(VENV)/installed ## Time nnpm predict --engine ray beside the plain command; DATA
	@$(VENV)/bin/python -m benchmarks.scale --data $(DATA) $(ARGS)

bench-registry: $(VENV)/installed ## Simulate 200 languages, 1,000 versions and 10,000 jobs
	@$(VENV)/bin/python -m benchmarks.registry_at_size $(ARGS)

bench-formats: $(VENV)/installed ## Compare the answers for the same clips in many formats; DATA
	@$(VENV)/bin/python -m benchmarks.formats --data $(DATA) $(ARGS)

bench-adapting: $(VENV)/installed ## Measure request latency while an adaptation runs; DATA
	@$(VENV)/bin/python -m benchmarks.latency_during_adaptation --data $(DATA) $(ARGS)

# Sources of each protocol, as training/benchmark/cases.py has them; a name is PROTOCOL-SEED.
SOURCE_P1 := ravdess crema
SOURCE_P2 := ravdess nemo
SOURCE_P3 := ravdess crema nemo banglaser
SOURCE_open := crema banglaser
SOURCE_without_ravdess := crema nemo banglaser
SOURCE_without_crema := ravdess nemo banglaser
SOURCE_without_nemo := ravdess crema banglaser
SOURCE_without_banglaser := ravdess crema nemo
NETWORK_SET ?= P3-0 open-0 P3-1 P3-2 P1-0 P1-1 P1-2 P2-0 without_ravdess-0 without_crema-0 \
	without_nemo-0 without_banglaser-0

# A finished network's bundle is kept; an interrupted run goes on from its checkpoint.
networks: $(NETWORK_SET:%=$(NETWORKS)/%/bundle.json) ## Train and export the benchmark's networks (6 hours; resumable); NETWORKS, DATA, ENCODER

network_protocol = $(firstword $(subst -, ,$*))
network_seed = $(lastword $(subst -, ,$*))

$(NETWORKS)/%/bundle.json: | $(VENV)/installed
	$(VENV)/bin/nnpm train --corpora $(SOURCE_$(network_protocol)) --data $(DATA) \
		--seed $(network_seed) --set encoder.source=$(ENCODER) --threads $(THREADS) \
		--out $(NETWORKS)/runs/$* $$(test ! -e $(NETWORKS)/runs/$*/run.json || echo --resume)
	$(VENV)/bin/nnpm export $(NETWORKS)/runs/$* --data $(DATA) --out $(NETWORKS)/$*

# Tests and development of one protocol, from the networks that are there.
bundles_of = $(patsubst %/,%,$(dir $(wildcard $(NETWORKS)/$(1)/bundle.json)))
benchmark_of = $(VENV)/bin/nnpm benchmark --bundle $(call bundles_of,$(PROTOCOL)-*) --data $(DATA) \
	--protocol $(PROTOCOL) --tables $(TABLES)

benchmark: $(VENV)/installed ## Compare the adaptation methods on the test targets; PROTOCOL=P1|P2|P3|open, TABLES="main shift", ARGS="--jobs 2"
	$(benchmark_of) --out $(RESULTS)/adaptation_$(PROTOCOL) $(ARGS)

benchmark-development: $(VENV)/installed ## The same on development targets; PROTOCOL=without_nemo too
	$(benchmark_of) --development --out $(RESULTS)/adaptation_$(PROTOCOL)_development $(ARGS)

# Each corpus by the first of these that has not learnt from it.
estimator: $(VENV)/installed ## Fit the accuracy estimate and the verdict, on development corpora that a network never saw
	$(VENV)/bin/nnpm benchmark --data $(DATA) --bundle \
		$(foreach name,P3-0 without_* P2-0 open-0,$(call bundles_of,$(name))) \
		--tables estimator --out $(RESULTS)/estimator $(ARGS)
	cp $(RESULTS)/estimator/estimator.json training/configs/estimator.json

charts: $(VENV)/installed ## Draw docs/charts/ from benchmarks/results/
	@$(VENV)/bin/python -m benchmarks.charts

examples: $(VENV)/installed ## Write the examples of the OpenAPI document: make examples CLIP=clip.wav
	@$(VENV)/bin/python -m scripts.examples --clip "$(CLIP)"

picture: $(VENV)/installed ## Draw docs/architecture.svg and list the files in docs/architecture.md, from the code
	@$(VENV)/bin/python scripts/picture.py

screenshots: $(VENV)/installed ## Take docs/screenshots/ of the page, with Chromium
	@$(VENV)/bin/python -m scripts.screenshots $(ARGS)

formats: $(VENV)/installed ## Write docs/operate/formats.md from the code: containers and codecs that are read
	@$(VENV)/bin/python -m scripts.formats_page

docs: $(DOCS_VENV)/installed ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict

# The locks are valid for every supported Python; torch is not in them, see requirements/torch.in.
UV_COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' $(TOOLS_VENV)/bin/uv pip compile -q --upgrade \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url

lock: $(TOOLS_VENV)/installed ## Update the pinned and hashed requirements of the images (requirements/)
	@$(UV_COMPILE) requirements/build.in -o requirements/build.txt
	@$(UV_COMPILE) pyproject.toml requirements/torch.in --override requirements/without-torch.in \
		--extra train --extra postgres --extra remote --extra otel --extra media -o requirements/train.txt
	@# what several have, all have in the same version
	@$(UV_COMPILE) pyproject.toml -c requirements/train.txt \
		--extra adapt --extra postgres -o requirements/service.txt
	@$(UV_COMPILE) pyproject.toml -c requirements/train.txt \
		--extra adapt --extra postgres --extra remote --extra otel --extra media -o requirements/service-media.txt

# Any engine that reads Dockerfiles.
DOCKER ?= docker
IMAGE_ARGS ?=
REGISTRY ?= registry.example.org
TAG ?= $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' nnpm/__init__.py)

image: ## Build the images nnpm-service and nnpm-worker with docker; IMAGE_ARGS="--build-arg ..."
	@for kind in service worker; do \
		$(DOCKER) build -f docker/$$kind.Dockerfile -t nnpm-$$kind \
			--build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' nnpm/__init__.py)" \
			--build-arg REVISION="$$(git rev-parse HEAD)" $(IMAGE_ARGS) . || exit 1; \
	done

# Needs docker buildx, and cosign for the signature; docs/operate/kubernetes.md says how to verify.
image-release: ## Build both images for amd64 and arm64 with SBOM and provenance, push and sign; REGISTRY, TAG
	@mkdir -p build
	REGISTRY=$(REGISTRY) TAG=$(TAG) REVISION="$$(git rev-parse HEAD)" \
		$(DOCKER) buildx bake -f docker/bake.hcl --push --metadata-file build/images.json
	@for kind in service worker; do \
		cosign sign --yes "$(REGISTRY)/nnpm-$$kind@$$($(PYTHON) -c "import json; \
print(json.load(open('build/images.json'))['$$kind']['containerimage.digest'])")" || exit 1; \
	done

image-check: ## Build the images with buildah (as root) and test them: predict, adapt, restart
	@$(PYTHON) scripts/image_check.py $(ARGS)

monitoring-check: $(VENV)/installed ## Run every query of the dashboard and alerts against a real Prometheus
	@$(VENV)/bin/python scripts/monitoring_check.py $(ARGS)

kubernetes: $(VENV)/installed ## Write the monitoring component of deploy/kubernetes from docker/
	@$(VENV)/bin/python -m scripts.kubernetes

clean: ## Remove environments and build output; keep runs/ and models/
	rm -rf .venv .venv-* build dist site .coverage *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find service training tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Environments are created again when pyproject.toml changes.

define new_environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "nnpm needs Python 3.11 or newer, which '$(PYTHON)' is not: name another with PYTHON=..." >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "'$(PYTHON)' cannot make environments: install its venv module (on Debian: apt install python3-venv)." >&2; exit 1; }
@echo "Installing into $(@D) ..."
@$(PYTHON) -m venv $(@D)
@$(@D)/$(PIP) --upgrade 'pip>=25.1'
endef

$(VENV)/installed: pyproject.toml
	$(new_environment)
	@$(@D)/$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[train,scale]' --group test --group test-train \
		--group test-scale --group test-browser --group test-deploy --group check
	@touch $@

$(VENV)/fuzz: $(VENV)/installed
	@$(@D)/$(PIP) --group fuzz
	@touch $@

$(SERVE_VENV)/installed: pyproject.toml
	$(new_environment)
	@$(@D)/$(PIP) -e '.[adapt,media,tables]'
	@touch $@

$(DOCS_VENV)/installed: pyproject.toml
	$(new_environment)
	@$(@D)/$(PIP) --group docs
	@touch $@

$(TOOLS_VENV)/installed: pyproject.toml
	$(new_environment)
	@$(@D)/$(PIP) --group lock
	@touch $@

.venv-service-%/ready: pyproject.toml
	@if python=$$(PYTHON="$(PYTHON)" scripts/pythons $*); then \
		$(MAKE) --no-print-directory .venv-service-$*/installed PYTHON="$$python"; fi

.venv-service-%/installed: pyproject.toml
	$(new_environment)
	@$(@D)/$(PIP) -e '.[adapt]' --group test
	@touch $@
