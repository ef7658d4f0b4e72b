# `make demo` and `make test` need Python 3.11, pip and make; they set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO ?= runs/demo
# Two processes: whole commands, which bring workers of their own, run one file a process.
PARTS := --numprocesses 2 tests/unit tests/contract
COMMANDS := --numprocesses 2 --dist loadgroup tests/system

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo demo-images check field test test-all test-ranges test-records lint stubs dist docs reference licences audit clean

$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## 66 synthetic people, 3 rounds, ten methods side by side
	if [ -f $(DEMO)/run.toml ]; then rm -rf $(DEMO); fi  # an earlier run, and nothing else
	$(BIN)/graft simulate --domains 66 --set selection.num_sources=3 \
		--set training.max_steps=150 --out $(DEMO)

demo-images: $(READY)  ## 12 cameras, EfficientNet-lite0 from a package: only heads travel
	rm -rf $(DEMO)-images
	$(BIN)/python examples/pretrained_pictures.py $(DEMO)-images

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint  ## lint, types, and the unit tests that the change since main can touch; CHECK=all: all
	$(BIN)/python .ci/check.py

test: lint  ## under ten minutes on two cores
	$(BIN)/pytest -m "not slow" $(PARTS)
	$(BIN)/pytest -m "not slow" $(COMMANDS)

test-all: lint  ## everything; the real data too where GRAFT_DATA_ORIGINALS names their folder
	$(BIN)/pytest $(PARTS)
	$(BIN)/pytest $(COMMANDS)

test-records: $(READY)  ## every valid record: 10,000 a type; GRAFT_RECORDS=1000000: a million
	$(BIN)/pytest -m slow --numprocesses 2 tests/unit/server/test_every_valid_record.py

field:  ## a deployment in containers, where Docker or Podman is: five devices, two rounds, a kill
	$(PYTHON) .ci/field.py

test-ranges: $(READY)  ## unit tests with the lowest and the newest versions of the dependencies
	mkdir -p build
	$(BIN)/python .ci/lowest.py > build/lowest.txt
	echo "torch==$$($(BIN)/python .ci/lowest.py | sed -n 's/^torch==//p')" > build/newest.txt
	for end in lowest newest; do \
		rm -rf build/$$end && $(PYTHON) -m venv build/$$end && \
		build/$$end/bin/python -m pip install --quiet --constraint build/$$end.txt --editable '.[dev]' && \
		build/$$end/bin/pytest -m "not slow" $(PARTS) || exit 1; \
	done

stubs: $(READY)  ## regenerate the protobuf stubs from proto/
	$(BIN)/python .ci/stubs.py

dist: $(READY)  ## wheel and sdist of the last commit, reproducible
	.ci/dist $(BIN)/python

docs: reference  ## the documentation as a site in site/, which opens from a disk too
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

reference: $(READY)  ## write docs/commands.md and docs/configuration.md anew
	$(BIN)/python .ci/reference.py

licences: $(READY)  ## write docs/licences.md anew
	$(BIN)/python .ci/licences.py

audit: $(READY)  ## known vulnerabilities of what graft needs; asks PyPI, so only on demand
	$(BIN)/python -m pip install --quiet '.[audit]'
	$(BIN)/pip-audit --strict --desc on .

clean:
	rm -rf $(VENV) dist build runs site
