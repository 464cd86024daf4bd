# appmux. `make demo` and `make test` set everything up first, in .venv, and are quick afterwards.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.PHONY: help demo test check soak fuzz format schema drift mutants constraints clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo         two clients on one app-server, without network: see what appmux does'
	@echo 'make test         all tests; ARGS="-k name" for some; WORKERS=1 one after another'
	@echo 'make test-clients programs of others, unmodified, natively and on the broker; some minutes'
	@echo 'make page         build the page from web/ into mux/web/static, if that is older'
	@echo 'make check        format, lint, types, import rules'
	@echo 'make format       put the source into the form that check wants'
	@echo 'make schema       write docs/schema from the classes in mux/core/extension'
	@echo 'make drift        what differs between two versions of codex; ARGS="OLD NEW", two binaries'
	@echo 'make mutants      faults put into what guards and keeps, and which no test notices; ARGS="access.pairing"'
	@echo 'make soak         clients come and go at random, the app-server is killed; then both it and the'
	@echo '                  broker are, renewed and upgraded; MINUTES=2 CLIENTS=8 KILLS=20 SEED=1'
	@echo 'make bench        how quick it is, beside the native listener and the limit; a quarter of an hour'
	@echo 'make bench-quick  the same in three minutes, less exact'
	@echo 'make bench-NAME   core, store: a part alone; year: what use makes dearer; profile: where the time goes, half a minute'
	@echo 'make bench-compare A=COMMIT B=COMMIT   is B slower? five minutes; ARGS="--repeat 9" to be sure'
	@echo 'make docs         the site of docs/, into dist/site; SERVE=1 serves it on loopback while you write'
	@echo 'make settings     write docs/settings.md from the settings and their reasons'
	@echo 'make commands     write docs/commands.md from the commands'\'' help'
	@echo 'make release      build the wheel and the sdist, check both, try both without the clone'
	@echo 'make constraints  pin the newest versions of all dependencies, with hashes'
	@echo 'make clean        remove what make made'
	@echo 'Needs Python 3.11 or newer; another one than python3: make PYTHON=python3.13 ...'

demo: $(STAMP) page
	$(BIN)/appmux demo $(ARGS)

# Most tests wait for processes, so one worker more than there are cores keeps the cores busy.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)

test: $(STAMP) newest page
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# The conformance stories are played with the newest codex as well, where npm and its registry are
# there; where not, they say so and are skipped. One try, as without a network many take minutes.
.PHONY: newest page
# The page, where it is missing or older than web/: quick when it isn't.
page: $(STAMP)
	@$(BIN)/python web/hook.py

# Programs of others that speak to codex app-server, each with its story (tests/clients). Where a
# registry isn't reached, the tests of its programs say so and are skipped.
.PHONY: test-clients
test-clients: $(STAMP) newest tests/clients/node_modules/.package-lock.json $(VENV)-clients/.installed
	$(BIN)/python -m pytest -n $(WORKERS) tests/clients $(ARGS)

$(VENV)-clients/.installed: tests/clients/requirements.txt
	-@$(PYTHON) -m venv --clear $(VENV)-clients && $(VENV)-clients/bin/python -m pip install --quiet \
	  --retries 1 --require-hashes --only-binary :all: -r $< && touch $@ || \
	  echo "tests/clients: its programs are not to be had from PyPI, and their tests will be skipped"

# A client of uploads, the linters of the container's files and Grafana's types of a dashboard come from
# npm as well.
newest: $(foreach each,newest tus container grafana,tests/$(each)/node_modules/.package-lock.json)
tests/%/node_modules/.package-lock.json: tests/%/package-lock.json
	-@npm ci --prefix tests/$* --silent --no-audit --no-fund --fetch-retries=0 && touch $@ || \
	  echo "tests/$*: its programs are not to be had from npm, and its tests will be skipped"

check: $(STAMP) page
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy mux tests bench
	$(BIN)/python -m pytest -q tests/test_imports.py
	$(BIN)/python -m tests.page.types

MINUTES ?= 2
KILLS ?= 20
CLIENTS ?= 8
SEED    ?= 1

soak: $(STAMP)
	$(BIN)/python -m tests.soak.soak --minutes $(MINUTES) --clients $(CLIENTS) --seed $(SEED)
	$(BIN)/python -m tests.soak.handovers --kills $(KILLS) --seed $(SEED)

LINES ?= 1000000

fuzz: $(STAMP)
	nice $(BIN)/python -m tests.fuzz --lines $(LINES) --seed $(SEED) $(if $(ROUND),--round $(ROUND))

# What the broker costs and saves. Quiet machine, please: other programs' work is measured too.
.PHONY: bench bench-quick bench-core bench-store bench-year bench-profile bench-compare
bench: $(STAMP)
	$(BIN)/python -m bench $(ARGS)

bench-quick: $(STAMP)
	$(BIN)/python -m bench --quick $(ARGS)

bench-core bench-store bench-year bench-profile: bench-%: $(STAMP)
	$(BIN)/python -m bench.$* $(ARGS)

A ?= main
B ?= HEAD
bench-compare: $(STAMP)
	$(BIN)/python -m bench.compare $(A) $(B) $(ARGS)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: $(STAMP)
	$(BIN)/python -m tests.extension_schemas

drift: $(STAMP)
	@$(BIN)/python -m tests.drift $(ARGS)

# The tester is no dependency of ours: it has an environment of its own, beside that of the tests.
MUTMUT := mutmut==3.8.1
MUTANTS := $(VENV)-mutants

mutants: $(STAMP)
	@$(MUTANTS)/bin/python -c 'import mutmut' 2>/dev/null || { \
	  $(BIN)/python -m venv --clear $(MUTANTS) && \
	  $(MUTANTS)/bin/python -m pip install --quiet '$(MUTMUT)' && \
	  $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > "$$($(MUTANTS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"; }
	nice -n 15 $(MUTANTS)/bin/python -m tests.mutants $(ARGS)

# Every wheel is checked against a hash of constraints.txt; the package itself comes last, built by
# the pinned hatchling. (http-ece, a library of the tests, is there as source only.) The stamp makes the second `make` quick.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "appmux needs Python 3.11 or newer, and '$(PYTHON)' isn't: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: \
	  --no-binary http-ece -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: docs settings commands release
# The site's and the release's tools have environments of their own: nothing of ours imports them.
docs: $(VENV)-site/.installed
	APPMUX_HOMEPAGE="$$($(PYTHON) -c 'from mux.documents import HOMEPAGE; print(HOMEPAGE)')" \
	  $(VENV)-site/bin/mkdocs $(if $(SERVE),serve,build --strict) --config-file contrib/site/mkdocs.yml

settings: $(STAMP)
	$(BIN)/python -m tests.settings_page

commands: $(STAMP)
	$(BIN)/python -m tests.commands_page

release: $(STAMP) $(VENV)-release/.installed
	$(BIN)/python contrib/release/release.py --twine $(VENV)-release/bin/twine $(ARGS)

$(VENV)-%/.installed: contrib/%/requirements.txt
	$(PYTHON) -m venv --clear $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r $<
	@touch $@

# Resolved for every platform and Python that pyproject.toml allows; the URLs and paths of the
# machine that does it stay out of the file.
constraints:
	$(PYTHON) -m venv --clear $(VENV)-uv
	$(VENV)-uv/bin/python -m pip install --quiet uv
	$(VENV)-uv/bin/uv pip compile pyproject.toml --extra dev --universal --upgrade --no-config \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	  --no-emit-package appserver-mux --quiet --output-file constraints.txt
	rm -rf $(VENV)-uv

clean:
	rm -rf tests/*/node_modules web/node_modules web/.types web/.tests mux/web/static
	rm -rf $(VENV) $(VENV)-clients $(VENV)-uv $(VENV)-site $(VENV)-release $(MUTANTS) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
