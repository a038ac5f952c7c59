# The recipes of this repository. They need uv and just; on a fresh machine Makefile.ci brings both.
# Every recipe makes the environment it needs in .venv, from the committed locks and from nothing else.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Any Python >= 3.11; `just python=3.12 test` or PYTHON=/path/to/python picks one.
python := env("PYTHON", ">=3.11")

# With no environment activated, and never through `uv run`, which would write a lock of its own.
unexport VIRTUAL_ENV

# With it, every program would compile all that it imports, each time: uv installs no bytecode.
unexport PYTHONDONTWRITEBYTECODE

[private]
default:
    @just --list --unsorted

# The wheel of this repository, built twice: two equal digests
[group('package')]
package: _environment package-constraints package-build package-verify

# Check that the committed locks are what `reprobuild lock` would write, at their own index time; tags of images may move
[group('package')]
package-constraints: _environment
    #!/usr/bin/env bash
    set -uo pipefail
    .venv/bin/reprobuild lock --check --no-images
    code=$?
    # 10 is "the index can't be reached": the build that follows checks constraints.txt against pyproject.toml all the same.
    if [ "$code" = 10 ]; then
        echo "package-constraints: the locks were not resolved again, for want of an index"
        exit 0
    fi
    exit "$code"

# Build the wheel of HEAD, with a record of every input, into dist/
[group('package')]
package-build: _environment
    .venv/bin/reprobuild wheel

# Build the wheel in dist/ again, in another environment, and compare the bytes
[group('package')]
package-verify: _environment
    .venv/bin/reprobuild verify-wheel

# Everything that reads the code without running it
[group('check')]
check: lint types

# Lint, and check the formatting
[group('check')]
lint: _environment-dev
    .venv/bin/ruff check
    .venv/bin/ruff format --check

# Type-check with mypy --strict
[group('check')]
types: _environment-dev
    .venv/bin/mypy

# Format the code and apply the safe lint fixes
[group('check')]
format: _environment-dev
    .venv/bin/ruff check --fix
    .venv/bin/ruff format

# Run every test, or those named: just test tests/unit -k digest
[group('test')]
test *arguments: _environment-dev
    .venv/bin/pytest {{ arguments }}

# The tests of single modules: no build, no index
[group('test')]
test-unit: _environment-dev
    .venv/bin/pytest tests/unit tests/property

# The tests that build the projects of tests/projects
[group('test')]
test-integration: _environment-dev
    .venv/bin/pytest -n auto --dist worksteal tests/integration

# The slow tests lie together, so an idle worker takes some of another's.
# What CI runs: lint, types, then every test in parallel. On Debian 12 the engine has to work: its tests fail, not skip
[group('test')]
test-ci: lint types
    REPROBUILD_REQUIRE_ENGINE="${REPROBUILD_REQUIRE_ENGINE:-1}" .venv/bin/pytest -n auto --dist worksteal --durations=20

# A real registry and Docker engine for the tests by hand: just engine up | env | base debian | status | down
[group('test')]
engine *arguments: _environment-dev
    @.venv/bin/python tests/engine/engine.py {{ arguments }}

# Measure against plain `uv build`, side by side; judges nothing
[group('test')]
bench *arguments: _environment-dev
    .venv/bin/python benchmarks/bench_wheel.py {{ arguments }}

# Measure `reprobuild diff` against diffoscope, which comes from the index, on two wheels of 300 MB
[group('test')]
bench-compare *arguments: _environment-dev
    .venv/bin/python benchmarks/bench_compare.py {{ arguments }}

# Measure `reprobuild image` against BuildKit, which comes from Debian's packages, on 450 MB of wheels and an app
[group('test')]
bench-image *arguments: _environment-dev
    .venv/bin/python benchmarks/bench_image.py {{ arguments }}

# Build the documentation into build/docs; a warning, such as of a link that leads nowhere, is an error
[group('docs')]
docs: _environment-dev
    .venv/bin/python -m sphinx -q -W --keep-going -n -j auto -b html -d build/docs-trees docs build/docs
    @echo build/docs/index.html

# Check the documentation: its tables, its links, and every command in it, which runs; or one page: just docs-check -k tutorial
[group('docs')]
docs-check *arguments: _environment-dev
    .venv/bin/pytest -n auto --dist worksteal tests/docs tests/unit/test_docs.py {{ arguments }}

# Write docs/commands.md from the commands
[group('docs')]
docs-commands: _environment-dev
    .venv/bin/python tests/docs/commands.py

# Write the locks of images/ and the digests in their Dockerfiles again, and with them every other lock
[group('images')]
images-lock *arguments: _environment
    .venv/bin/reprobuild lock {{ arguments }}

# --- A release: docs/release.md says in which order, and release/steps.py what each step reads ---

# The locks are fresh, nothing in them is known to be vulnerable; tag, version and changelog agree
[group('release')]
release-check: (_release "check")

# The wheel, built twice: on each of two machines
[group('release')]
release-wheel: (_release "wheel")

# The sdist, built twice
[group('release')]
release-sdist: (_release "sdist")

# What two machines built has the same bytes: just release-compare ONE-FOLDER ANOTHER
[group('release')]
release-compare +folders: (_release "compare" folders)

# Each image, built twice, and by the other engine
[group('release')]
release-images: (_release "images")

# Bills of materials beside the wheel and the images
[group('release')]
release-sbom: (_release "sbom")

# Sign records, bills of materials and audits
[group('release')]
release-sign: (_release "sign")

# Images and what is signed about them into the registry, without a tag
[group('release')]
release-push: (_release "push")

# Write dist/policy.toml, which trusts this repository's workflows, and the public keys that are named
[group('release')]
release-policy *keys: (_release "policy" keys)

# On a machine that built none of it: make everything again, and sign what came out
[group('release')]
release-vote: (_release "vote")

# The same without signing
[group('release')]
release-again: (_release "again")

# Hold everything against the policy
[group('release')]
release-verify: (_release "verify")

# Verify everything, then upload it, then set the tags
[group('release')]
release-publish: (_release "publish")

# Install what was published with pip and with uv, and run it; run the image
[group('release')]
release-try: (_release "try")

# The changelog's section of this version; after release-verify with the digests and how to verify them
[group('release')]
release-notes: (_release "notes")

# A whole release on this machine, against a registry, an index, advisories and a Sigstore of its own; goes on where it was
[group('release')]
release-dry-run *arguments: _environment-dev
    .venv/bin/python release/rehearsal.py {{ arguments }}

# Build what the newest tag released again, from its lock; open an issue where a byte has moved
[group('release')]
release-nightly: (_release "nightly")

# In CI: an issue that says so
[group('release')]
release-alarm: (_release "alarm")

# In CI: the release's page, with notes and files
[group('release')]
release-announce: (_release "announce")

# In CI: log in to the registry
[group('release')]
release-login: (_release "login")

_release step *arguments: _environment-release
    @.venv/bin/python release/steps.py {{ step }} {{ arguments }}

_environment: (_install "requirements.txt")

# One environment for both: the two locks have to agree, and uv refuses them here if they don't.
_environment-dev: (_install "requirements.txt" "environments/dev/requirements.txt")

# What signs has nothing of what only tests need.
_environment-release: (_install "requirements.txt" "environments/release/requirements.txt")

# One stamp a lock, the digest of all that went in: an unchanged environment costs a few milliseconds, and the
# environment for the tests serves the package recipes as well.
_install +locks:
    #!/usr/bin/env bash
    set -euo pipefail
    wanted() { printf '%s\n' {{ quote(python) }} "$PWD" && sha256sum pyproject.toml constraints.txt environments/bootstrap/requirements.txt "$1"; }
    fresh=yes files=()
    [ -x .venv/bin/reprobuild ] || fresh=no
    for lock in {{ locks }}; do
        files+=(--requirement "$lock")
        wanted "$lock" | cmp --silent - ".venv/stamp-${lock//\//-}" || fresh=no
    done
    if [ "$fresh" = yes ]; then exit 0; fi
    uv venv --quiet --no-project --no-python-downloads --clear --python {{ quote(python) }} .venv
    install=(uv pip install --quiet --python .venv/bin/python)
    "${install[@]}" --require-hashes "${files[@]}"
    # The project is a folder and has no hash, but its backend has, and so has the editables package, which hatchling
    # asks for in editable installs only: the bootstrap lock holds that one.
    "${install[@]}" --no-deps --build-constraint constraints.txt \
        --build-constraint environments/bootstrap/requirements.txt --editable .
    for lock in {{ locks }}; do wanted "$lock" > ".venv/stamp-${lock//\//-}"; done
