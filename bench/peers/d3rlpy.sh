#!/bin/sh
# d3rlpy 2.8 in an environment of its own, which sees our torch: it asks for a Gymnasium of long ago, and works with ours.
#
#   sh bench/peers/d3rlpy.sh        makes .venv-d3rlpy next to .venv
set -e
cd "$(dirname "$0")/../.."
test -x .venv-d3rlpy/bin/python && exit 0
.venv/bin/python -m venv .venv-d3rlpy
.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >.venv-d3rlpy/shared
cp .venv-d3rlpy/shared "$(.venv-d3rlpy/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
.venv-d3rlpy/bin/pip install --quiet --no-deps d3rlpy==2.8.1 gym==0.26.2 gym-notices structlog dataclasses-json marshmallow \
    typing-inspect mypy-extensions colorama click cloudpickle scikit-learn scipy joblib threadpoolctl narwhals
