# One-line targets; all real work is in manage.py and the tools. POSIX sh and any make will do.

# PYTHON=/path/to/python make …  chooses the interpreter for .venv; else 3.13, 3.12, 3.11 or 3.14, the first that runs.
PYTHON =
# Two cores carry four workers well: much of the time a test waits for a server or for ffmpeg.
TEST_WORKERS = 4
TESTS =

.PHONY: help demo up test fuzz scale lint format check api clients bench chaos chaos-mutants lock dev

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -e 's/:.*##/	/'

# PYTHONDONTWRITEBYTECODE: without bytecode on disk every process compiles everything anew; some machines are set so.
# Nothing that is configured, in the environment or in .env.local, is touched by the demo or the tests.
demo: .venv/runtime  ## make one simulated video from a prompt, and show it
	@unset PYTHONDONTWRITEBYTECODE DATABASE_URL CELERY_BROKER_URL STORAGE_LOCAL_PATH STORAGE_URL STORAGE_PUBLIC_ENDPOINT STORAGE_CDN_URL STORAGE_CDN_LINKS STORAGE_ENCRYPTION STORAGE_KMS_KEY STORAGE_CLASS SCRATCH_PATH REELWORKS_HOME PORT SIMULATOR_PORT; REELWORKS_ENV_FILE= REELWORKS_SIMULATE=1 \
		.venv/bin/python manage.py up --then generate "A cat walking in a garden" --wait

up: .venv/runtime  ## start everything and stay up (PORT=8000)
	@unset PYTHONDONTWRITEBYTECODE; exec .venv/bin/python manage.py up

test: .venv/dev  ## the whole suite; TESTS=path chooses
	@unset PYTHONDONTWRITEBYTECODE; .venv/bin/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

fuzz: .venv/dev  ## the property tests with thousands of new examples each; TESTS=path chooses
	@unset PYTHONDONTWRITEBYTECODE; TESTS_HYPOTHESIS_PROFILE=fuzz .venv/bin/python -m pytest -n $(TEST_WORKERS) -m "hypothesis and not scale" $(TESTS)

scale: .venv/dev  ## what wants the machine to itself: 1,000,000 tasks, 10,000 jobs, chaos, the image, all pages by axe-core
	@unset PYTHONDONTWRITEBYTECODE; .venv/bin/python -m pytest -m scale tests/scale tests/bench tests/providers/simulator tests/deploy tests/system/test_stray_answers.py tests/browser/test_console_pages.py

lint: .venv/dev  ## style, types, layers
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy
	.venv/bin/python -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

format: .venv/dev  ## let ruff rewrite the code
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .

check: lint  ## what CI runs: lint, missing migrations, tests, scale
	REELWORKS_ENV_FILE= REELWORKS_SIMULATE=1 .venv/bin/python manage.py makemigrations --check --dry-run
	@$(MAKE) test
	@$(MAKE) scale

api: .venv/dev  ## docs/openapi.json and docs/errors.md anew, from the code
	@.venv/bin/python docs/make_api.py

clients: .venv/dev  ## typed clients for Python and TypeScript, from docs/openapi.json, into .clients/ (needs npm)
	@.venv/bin/python docs/make_clients.py

bench: .venv/dev  ## the measurements (docs in bench/)
	@.venv/bin/python -m bench

# make chaos N=1000 SEED=1; without SEED another one each time. ARGS=--help lists the rest.
N = 200
SEED =
ARGS =
chaos: .venv/dev  ## kill everything at random under N jobs, then check that no promise broke (N=200 SEED=)
	@.venv/bin/python -m bench.chaos --jobs "$(N)" --seed "$(SEED)" $(ARGS)

chaos-mutants: .venv/dev  ## take one guard at a time out of a copy of the code: chaos must see each
	@.venv/bin/python -m bench.chaos.mutants $(ARGS)

lock: .venv/dev  ## new pins from the *.in files
	@.venv/bin/python -m uv --version >/dev/null 2>&1 || .venv/bin/python -m pip install --quiet uv
	.venv/bin/python -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header requirements.in -o requirements.txt
	.venv/bin/python -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header -c requirements.txt requirements-dev.in -o requirements-dev.txt

# The stamps hold a checksum of what is installed, so that nothing is installed twice; the script says what it misses.
.venv/runtime: FORCE
	@PYTHON="$(PYTHON)" sh .ci/install runtime

.venv/dev: FORCE
	@PYTHON="$(PYTHON)" sh .ci/install dev

FORCE:
