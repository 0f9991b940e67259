#!/bin/sh
# A small CNN learns to drive in CARLA from 20 minutes of an expert's pictures and what DAgger adds: half an hour on two cores.
#
#     scripts/carla.sh            data/carla, runs/carla, and what bench/driving.py says of it
#
# It sees one picture, 160x90, and the command of the route; it says a path and a speed. Interrupted, the same line goes on.
set -eu

BIN=${BIN:-.venv/bin}
DATA=${DATA:-data/carla}
RUN=${RUN:-runs/carla}
TOWNS=grid+grid+grid+roundabout+Random-1+Random-2+Random-3+Random-4+Random-5+Random-6
WORLD=carla:town=$TOWNS,action=path,state=command,length=300

[ -f "$DATA/meta/info.json" ] ||
    "$BIN/drivetrain" collect --env "$WORLD" --by carla --episodes 24 --noise 0.1 --output-dir "$DATA" --resume

RESUME=
[ -d "$RUN/checkpoints" ] && RESUME=--resume
"$BIN/drivetrain" train dagger --dataset "$DATA" --env "$WORLD,stray=4" --steps 7000 --round-steps 1000 --episodes 8 \
    --beta 0.3 --lr 6e-4 --network.camera-channels 16 32 64 --output-dir "$RUN" $RESUME

"$BIN/python" bench/driving.py policy "$RUN"
