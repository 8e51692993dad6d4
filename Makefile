# Everything a clone needs: `make quickstart` and `make test` work on a machine with Python 3.11 to 3.13 and make.
PYTHON ?= python3
BIN := .venv/bin
# The environment's name is a digest of what goes into it: made again when an input changes, and not otherwise.
DIGEST := $(shell $(PYTHON) -c "import hashlib,sys;h=hashlib.sha256(sys.version.encode());[h.update(open(f,'rb').read()) for f in ('pyproject.toml','constraints.txt')];print(h.hexdigest()[:16])")
ENVIRONMENT := .venv/made-$(DIGEST)

.PHONY: help quickstart test test-ray test-workers test-cluster test-slurm test-docs chaos check bench codes calibrate docs docs-site constraints test-wheel clean
help: ## these lines
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

quickstart: $(ENVIRONMENT) ## the first study: 29 trials on rendered characters, then its report
	@$(BIN)/gnc run studies/quickstart.toml; outcome=$$?; \
	  test $$outcome -lt 2 && $(BIN)/gnc report results/quickstart && exit $$outcome

test: $(ENVIRONMENT) ## the test suite, under 8 minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

test-ray: $(ENVIRONMENT) ## runs, searches, trials of several workers, faults and loggers on real Ray; about twelve minutes
	$(BIN)/python -m pytest -m ray

test-workers: $(ENVIRONMENT) ## a full run of two workers against one worker's spread over seeds: two minutes
	$(BIN)/python -m pytest -m workers -s

test-cluster: $(ENVIRONMENT) ## three hosts in namespaces, AWS and S3 on loopback: faults, security, retries; under 15 minutes
	@command -v rsync >/dev/null && test -x /usr/sbin/sshd && command -v ip >/dev/null || \
	  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    openssh-server openssh-client rsync iproute2 procps) >/dev/null || echo "no sshd, rsync or ip: the hosts' tests will skip"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test-cluster]'
	$(BIN)/python -m pytest tests/cluster -m cluster -n 0 --durations=10

test-slurm: $(ENVIRONMENT) ## arrays on SLURM's own daemons, started on this machine as root: limits, requeues, lost nodes; about ten minutes
	@test -x /usr/sbin/slurmctld && test -x /usr/sbin/slurmd && test -x /usr/sbin/munged && command -v sbatch >/dev/null || \
	  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    slurmctld slurmd slurm-client munge) >/dev/null || echo "SLURM could not be installed: its tests will skip"
	$(BIN)/python -m pytest tests/slurm -m slurm -n 0 --durations=10

test-docs: docs-site ## every command and code block of the documents, and the site opened in Chromium; about five minutes
	$(BIN)/python -m pytest tests/docs -m docs -n 0 --durations=10

chaos: $(ENVIRONMENT) ## 100 randomly timed faults, each followed by a rerun and a comparison; about an hour
	$(BIN)/python -m tests.chaos --faults $(or $(FAULTS),100) $(if $(SEED),--seed $(SEED))

check: $(ENVIRONMENT) ## format, lint, types, import rules, generated docs up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.data_dictionary --check docs/rows.md docs/settings.md

docs: $(ENVIRONMENT) ## write the generated pages
	$(BIN)/python -m tools.data_dictionary docs/rows.md docs/settings.md

docs-site: $(ENVIRONMENT) ## the documentation as a site in build/site, which needs no internet; warnings are errors; npm brings KaTeX once
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(ENVIRONMENT) ## margins, chunked cross-entropy, a report of a million rows, the results folder and `gnc run` at thousands of trials: about two hours; never part of the tests
	$(BIN)/python -m benchmarks.margins
	$(BIN)/python -m benchmarks.chunked
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.sharing

codes: $(ENVIRONMENT) ## how near the code optimiser comes to the best known; 120 CPU seconds a pair, goes on where it was
	$(BIN)/python -m benchmarks.codes --kept benchmarks/codes.csv

calibrate: $(ENVIRONMENT) ## do the report's intervals and sentences hold on planted studies, and which form is chosen? half an hour of one core
	$(BIN)/python -m tools.planted_studies --studies 500
	$(BIN)/python -m tools.calibration --studies 300
	$(BIN)/python -m tools.calibration --choices 60 --cells 12

test-wheel: ## build the wheel, install it in an empty environment, use it outside the checkout
	PYTHON=$(PYTHON) sh tests/wheel.sh

constraints: $(ENVIRONMENT) ## pin what is installed now
	$(BIN)/python -c "import subprocess,re;from pathlib import Path;names=subprocess.run(['$(BIN)/python','-m','pip','freeze','--exclude-editable'],capture_output=True,text=True,check=True).stdout.split();Path('constraints.txt').write_text(Path('constraints.txt').read_text().splitlines()[0]+'\n'+'\n'.join(sorted((re.sub(r'\+.*','',n) for n in names if '==' in n),key=str.lower))+'\n')"

$(ENVIRONMENT):
	@$(PYTHON) -c "import sys; sys.exit(0 if (3,11) <= sys.version_info[:2] <= (3,13) else 'Python must be 3.11 to 3.13, got '+sys.version.split()[0]+'. Name one: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean: ## remove the environment and what was built; results stay
	rm -rf .venv build dist *.egg-info
