#!/bin/sh
# A vision-language model learns to drive CarRacing, from nothing: it takes hours of one core.
#
#     sh scripts/carracing.sh                                    with tiny-git, which is made here first
#     BACKBONE=microsoft/git-base MORE="--tune lora" sh scripts/carracing.sh      the same with a published one
#
# Collect, caption with LoRA, imitate, improve by PPO, judge. Runs go to runs/story/, and a command that was interrupted goes
# on where it stopped when the script is started again.
set -e
PATH="$(dirname "$0")/../.venv/bin:$PATH"
PROMPT="What should the vehicle do in this scenario?"
OUT=${OUT:-runs/story}
DATA=${DATA:-data/story}

train() { # WHAT NAME FLAGS...: a run, begun or gone on with
    what=$1; name=$2; shift 2
    [ -f "$OUT/$name/report.md" ] && return
    resume=; [ -f "$OUT/$name/config.json" ] && resume=--resume
    drivetrain train "$what" --output-dir "$OUT/$name" $resume "$@"
}

# 0. A backbone that sees and speaks, where none is named. (`BACKBONE=tiny-git` takes the one that ships.)
if [ -z "$BACKBONE" ]; then
    train pretrain eyes --architecture git
    BACKBONE=$OUT/eyes
fi

# 1. The expert drives; image, action and words of every frame.
[ -f "$DATA/laps/meta/info.json" ] || drivetrain collect --env carracing --by carracing --noise 0.1 --episodes 20 \
    --output-dir "$DATA/laps" $([ -d "$DATA/laps" ] && echo --resume)
[ -d "$DATA/labels" ] || drivetrain collect --as captions --dataset "$DATA/laps" --style plain --scenes 10000 --output-dir "$DATA/labels"

# 2. Captions by LoRA, and how such a model drives by its answers alone.
train caption captions --backbone "$BACKBONE" --dataset "$DATA/labels" --prompt "$PROMPT" --steps 1000
drivetrain eval "$OUT/captions" --env carracing --episodes 10

# 3. Imitation: clone, drive, be corrected, four times.
train dagger drive --dataset "$DATA/laps" --backbone "$BACKBONE" --prompt "$PROMPT" --words 0.3 --smoothing 0.02 \
    --episodes 10 --round-steps 600 --steps 3000 --lr 6e-4 --beta 0.2 --checkpoint-every 600 $MORE

# 4. PPO, held near the imitation.
train ppo improved --env carracing --policy "$OUT/drive" --rollout 128 --epochs 5 --gamma 0.99 --gae-lambda 0.95 \
    --clip 0.1 --lr 1e-4 --normalise-returns --clip-reward 5 --value-warmup 20480 --anchor 0.02 --freeze --no-anneal --steps 102400

# 5. On tracks that no training saw, in Gymnasium's own environment.
drivetrain eval "$OUT/drive" --episodes 20 --seed 90000 --against untrained --video "$OUT/drive.mp4"
drivetrain eval "$OUT/improved" --episodes 20 --seed 90000 --against "$OUT/drive"
