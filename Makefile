# make book: execute the chapters and render the site     make test: everything that can be proved
# pip reads its own environment variables (PIP_INDEX_URL, PIP_FIND_LINKS, ...), so they pass through.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin/python
READY := .venv/.installed

export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help book test bench lint outputs release clean
help:
	@echo "make book     execute the chapters (fast profile) and render the site"
	@echo "make test     style, unit tests, notebooks, site, browser"
	@echo "make bench    time and memory of the engine against plain autograd (about five minutes)"
	@echo "make lint     ruff and mypy only"
	@echo "make outputs  execute the chapters and store their normalised outputs in book/"
	@echo "make release  sdist, wheel and the site as a zip, with checksums, in dist/"
	@echo "make clean    remove the built site and caches of this folder"

book: $(READY)
	$(RUN) book/build.py

test: $(READY)
	$(RUN) tests/run.py

bench: $(READY)
	$(RUN) benchmarks/engine.py

lint: $(READY)
	$(RUN) tests/run.py style

outputs: $(READY)
	$(RUN) book/build.py --store

release: book
	$(RUN) book/release.py

clean:
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.13 found. Install one, or name it: make book PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Making .venv with $(PYTHON) and installing (about a minute, and a download of up to 3 GB the first time)"
	@test -x $(RUN) || $(PYTHON) -m venv .venv || { echo "python -m venv failed. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
