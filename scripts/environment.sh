# The other scripts source this file. It makes .venv/ at the repository's root and installs the package with the extras in $1.
# A second call with the same pins and extras does nothing.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
extras="$1"
unset PYTHONDONTWRITEBYTECODE # where it is set, each process would compile all that it imports
stamp=".venv/.installed-${extras:-core}"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
  python="${PYTHON:-python3}"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or later is needed; set PYTHON to one (this is $("$python" --version 2>&1))." >&2
    exit 2
  }
  [ -d .venv ] || "$python" -m venv .venv
  echo "Installing the pinned packages into .venv/ (once; a few minutes) ..." >&2
  # torch comes first, by its exact pin, so that the packages after it pull in no other build.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
  DS_BUILD_OPS=0 .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extras:+[$extras]}"
  touch "$stamp"
fi
