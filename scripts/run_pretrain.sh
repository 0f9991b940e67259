#!/bin/sh
# Stages 1a and 1b: align a projector, then tune on instructions. By default with tiny-llava and questions about our own worlds.
#   sh scripts/run_pretrain.sh
# With a real pair and LLaVA's data, on GPUs:
#   VISION=google/siglip-base-patch16-224 LLM=Qwen/Qwen2-1.5B-Instruct DEVICE=cuda IMAGES=coco/train2017 \
#   ALIGNMENT=LLaVA-Pretrain/blip_laion_cc_sbu_558k.json INSTRUCTION=LLaVA-Instruct-150K/llava_instruct_150k.json \
#       sh scripts/run_pretrain.sh
set -eu
OUT=${OUT:-output} DEVICE=${DEVICE:-cpu}
if [ -z "${ALIGNMENT:-}" ]; then
    [ -d data/cartpole-questions ] || drivetrain collect --as instructions --env cartpole --scenes 2000 --output-dir data/cartpole-questions
    ALIGNMENT=data/cartpole-questions
fi
if [ -n "${VISION:-}" ]; then
    MODEL="--vision-model $VISION --llm-model $LLM"
else
    MODEL="--backbone tiny-llava --new-projector"
fi
# shellcheck disable=SC2086
drivetrain train align $MODEL --alignment-dataset "$ALIGNMENT" --device "$DEVICE" --output-dir "$OUT/stage1a" "$@"
drivetrain train instruct --backbone "$OUT/stage1a" --instruction-dataset "${INSTRUCTION:-$ALIGNMENT}" --images "${IMAGES:-}" \
    --device "$DEVICE" --output-dir "$OUT/stage1b" "$@"
