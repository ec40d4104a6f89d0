#!/usr/bin/env bash
# Submits one Slurm job per stage, and one per teacher, each waiting for what it reads.
# A job that ends with 75 (interrupted, its work so far is kept) is requeued; any other failure stops the chain.
#
#   RUN=runs/mkg-w RECIPE=pipelines/mkg-w.toml RAW=raw/mkg-w TEXT_MODEL=checkpoint pipelines/slurm.sh
#
# MODALITIES lists the teachers ("structural textual caption"); SBATCH_ARGS goes to every sbatch.
set -euo pipefail
: "${RUN:?the run directory}" "${RECIPE:?a recipe}" "${RAW:?the raw dataset}"
bin=${BIN:-target/release}
modalities=${MODALITIES:-structural textual}
stage=(--run "$RUN" --recipe "$RECIPE")

submit() { # DEPENDENCIES PROGRAM ARGUMENTS...
    local after=$1 command
    shift
    command=$(printf '%q ' "$bin/$1" "${@:2}")
    # shellcheck disable=SC2086
    sbatch --parsable --requeue ${after:+--dependency=afterok:$after} --job-name="$1" ${SBATCH_ARGS:-} \
        --wrap "$command; code=\$?; [ \$code -ne 75 ] || scontrol requeue \$SLURM_JOB_ID; exit \$code"
}

graph=$(submit "" dsom-import "${stage[@]}" --raw "$RAW")
features=$(submit "$graph" dsom-features "${stage[@]}" ${TEXT_MODEL:+--text-model "$TEXT_MODEL"} \
    ${IMAGE_MODEL:+--image-model "$IMAGE_MODEL"})
teachers=()
for modality in $modalities; do
    teachers+=("$(submit "$features" dsom-teachers "${stage[@]}" --modality "$modality")")
done
labels=$(submit "$(IFS=:; echo "${teachers[*]}")" dsom-soft-labels "${stage[@]}")
student=$(submit "$labels" dsom-distill "${stage[@]}")
submit "$student" dsom-evaluate "${stage[@]}"
