#!/bin/sh
# Fills a virtual environment: torch first and by itself, then this project and its extras around it.
#
#   sh scripts/install.sh .venv/bin/python dev
#
#   TORCH         what pip is asked for: torch==2.13.0 unless said, and its CPU build where there is no NVIDIA GPU
#   TORCH_INDEX   the index to take it from; unless said, pip's own sources, and PyTorch's index where those lack it
set -eu
python=$1
extras=$2

release=torch==2.13.0
cpu_index=https://download.pytorch.org/whl/cpu

# Both ask for packages that would clash with ours or are large and unused: gym-pusht for a second pygame and OpenCV,
# envpool for assets of simulators it never opens here. What they do need is in the extras `pusht` and `dev`.
alone="gym-pusht==0.1.8"
alone_where_built="envpool==1.2.5 envpool-assets==0.3.0 envpool-assets-mujoco-large==0.3.0"

pip() { "$python" -m pip --disable-pip-version-check "$@"; }
has_gpu() { [ -e /dev/nvidia0 ] || nvidia-smi >/dev/null 2>&1; }
version_of_torch() { "$python" -c 'import importlib.metadata as m; print(m.version("torch"))'; }

if [ -n "${TORCH_INDEX:-}" ]; then
    pip install "${TORCH:-$release}" --index-url "$TORCH_INDEX"
elif [ -n "${TORCH:-}" ]; then
    pip install "$TORCH"
elif has_gpu || [ "$(uname -s)" != Linux ]; then
    pip install "$release"
elif ! pip install --quiet "$release+cpu" 2>/dev/null; then
    echo "pip's own sources have no $release+cpu; taking it from $cpu_index"
    pip install "$release+cpu" --index-url "$cpu_index"
fi

torch=$(version_of_torch)
held=$(mktemp)
trap 'rm -f "$held"' EXIT
echo "torch==$torch" >"$held"
pip install --quiet --constraint "$held" --editable ".[$extras]"
pip install --quiet --no-deps $alone
pip install --quiet --no-deps $alone_where_built ||
    echo "envpool has no build for this machine: carracing-continuous:drawing=envpool will not run, all else will"

if [ "$(version_of_torch)" != "$torch" ]; then
    echo "torch $torch was replaced by $(version_of_torch): some package asks for another; pin it in pyproject.toml" >&2
    exit 1
fi
echo "ready: torch $torch"
