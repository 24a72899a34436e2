#!/usr/bin/env bash
# The tables of the guides that a script makes: bash scripts/reproduce.sh --list, and bash scripts/reproduce.sh NAME makes one.
# Speed has its own command, scripts/bench.py.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" scripts/reproduce.py "$@"
