#!/usr/bin/env bash
# Makes .venv-verl/ at the repository's root: the package beside verl, on a CPU and without an engine, for tests/verl.
# About 2 GB and 3 minutes, once; a second call does nothing. Exit code 3: verl cannot be had here.
# verl wants an older transformers than the package's pin. The agent loop runs with both; training with TRL needs the pin.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-verl
stamp="$venv/.installed"
for source in pyproject.toml constraints.txt "$0"; do
  [ "$stamp" -nt "$source" ] || stale=yes
done
[ -n "${stale:-}" ] || exit 0

verl=0.9.1
transformers=5.9.0 # what verl's own extras pin
[ -d "$venv" ] || "${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip "$@"; }
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
pip download --quiet --no-deps --dest "$work" "verl==$verl" || exit 3

# The package's own requirements but those that come with transformers; pip itself sees to verl's.
"$venv/bin/python" - > "$work/requirements.txt" <<'PYTHON'
import tomllib

of_transformers = ("transformers", "tokenizers", "huggingface-hub", "safetensors")
for requirement in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]:
    if not requirement.startswith(of_transformers):
        print(requirement)
PYTHON
echo "Installing verl $verl into $venv/ (once; about 2 GB) ..." >&2
grep '^torch==' constraints.txt > "$work/constraints.txt"
pip install --quiet -c "$work/constraints.txt" -r "$work/requirements.txt" \
  "$work"/verl-*.whl "transformers==$transformers" "TransferQueue>=0.1.10" cachetools fastapi uvicorn \
  msgspec pyzmq qwen-vl-utils pytest hypothesis setuptools
pip install --quiet --no-deps --force-reinstall torchvision==0.28.0
pip install --quiet --no-deps --no-build-isolation -e .
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -rf "$site/tests" # verl's own, which hide ours
# The operators of that torchvision are compiled for CUDA. Two are named when it is imported; nothing here calls them.
cat >> "$site/torchvision/extension.py" <<'PYTHON'

if not _has_ops():
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
PYTHON
touch "$stamp"
