#!/bin/sh
# Runs the stages from teachers to evaluation on a CUDA device: where `make build-cuda` was run, or where what
# `make bundle-cuda` packed was unpacked. Features come from wherever they were made;
# STAGES='features teachers soft-labels distill evaluate' makes them here as well (DSOM_TEXT_MODEL, DSOM_IMAGE_MODEL: encoders).
#
#   RUN=runs/db15k RECIPE='pipelines/db15k.toml pipelines/paper.toml' pipelines/cuda.sh [ARGUMENTS OF EVERY STAGE]
#   pipelines/cuda.sh check      only the tests of what runs on the device: golden values, and every step beside the CPU's
#
# DEVICE (cuda), STAGES, BIN (where the programs are) and LIBRARIES (CUDA's) have defaults.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
BIN=${BIN:-$here/target/cuda/bin}
LIBRARIES=${LIBRARIES:-$here/target/cuda/lib}
[ -d "$LIBRARIES" ] || LIBRARIES=$here/target/cuda/wheels/nvidia/cu13/lib
export LD_LIBRARY_PATH="$LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

if [ "${1:-}" = check ]; then
    export DSOM_TEST_DEVICE="${DEVICE:-cuda}"
    exec "$BIN/device-tests" --test-threads=1
fi

: "${RUN:?RUN=folder of the run}" "${RECIPE:?RECIPE=recipes, the last one wins}"
export DSOM_DEVICE="${DEVICE:-cuda}"
recipes=
for recipe in $RECIPE; do
    recipes="$recipes --recipe $recipe"
done
# A stage that is fresh stops at once, one that was interrupted goes on: run this again after a kill.
for stage in ${STAGES:-teachers soft-labels distill evaluate}; do
    # shellcheck disable=SC2086
    "$BIN/dsom-$stage" --run "$RUN" $recipes "$@"
done
