#!/usr/bin/env bash
# Runs every check: lint, format, types, tests. Arguments go to pytest, which runs a process for each core.
set -euo pipefail
. "$(dirname "$0")/environment.sh" train,api,serve,ray,plot,images,ocr,dev
export PATH="$PWD/.venv/bin:$PATH"
ruff check .
ruff format --check .
mypy
python -m pytest -n auto --dist loadfile "$@"
