#!/bin/sh
# The real CARLA server in Docker, without a screen: needs an NVIDIA GPU, its driver, and the NVIDIA container toolkit.
#
#     scripts/carla_docker.sh                    CARLA 0.9.16 at 127.0.0.1:2000
#     PORT=3000 GPU=1 scripts/carla_docker.sh    at another port, on the second GPU
#
# Then, in another terminal:
#
#     drivetrain collect --env carla:port=2000,town=Town03,traffic=30 --by carla --episodes 20 --output-dir data/town03
#
# Streams are at PORT + 1. Only this machine can reach it: CARLA asks nobody for a password.
set -eu

VERSION=${VERSION:-0.9.16}
PORT=${PORT:-2000}
GPU=${GPU:-0}
QUALITY=${QUALITY:-Epic}   # or Low: several times as fast, and poorer pictures

command -v docker > /dev/null || { echo "docker is not installed: https://docs.docker.com/engine/install" >&2; exit 2; }

exec docker run --rm --init --name "carla-$PORT" \
    --gpus "device=$GPU" --env NVIDIA_DRIVER_CAPABILITIES=all \
    --publish "127.0.0.1:$PORT:$PORT" --publish "127.0.0.1:$((PORT + 1)):$((PORT + 1))" \
    "carlasim/carla:$VERSION" \
    bash CarlaUE4.sh -RenderOffScreen -nosound -quality-level="$QUALITY" -carla-rpc-port="$PORT"
