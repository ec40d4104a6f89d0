#!/usr/bin/env bash
# Submits one Slurm job per stage, and one per teacher, each waiting for what it reads; prints each job's number and log.
#
#   RUN=runs/mkg-w RECIPE=pipelines/mkg-w.toml RAW=data/raw/mkg-w pipelines/slurm.sh
#
# MODALITIES lists teachers that are trained at the same time ("structural textual"); without it, and for those that it lacks, one job
# trains one after the other. RECIPE may name several files. ARGS goes to every program ('--set teachers.rank=512 --seed 1'),
# SBATCH_ARGS to every sbatch, GPU_ARGS ('--gres=gpu:1') to those of stages that use a device. BIN holds the programs.
#
# A job stops in order two minutes before its time limit, or when it is preempted, and is queued again: the next start continues. So
# is one whose folder another process holds. Any other failure cancels what waits for it.
set -euo pipefail
: "${RUN:?the run directory}" "${RECIPE:?one or more recipes}" "${RAW:?the raw dataset}"
bin=$(realpath "${BIN:-bin}")
run=$(realpath -m "$RUN")
[ -x "$bin/dsom-import" ] || { echo "no programs in $bin: run \`make build\`, or set BIN" >&2; exit 2; }
[ -d "$RAW" ] || { echo "there is no $RAW" >&2; exit 66; }
stage=(--run "$run")
if [ -f "$RECIPE" ]; then files=("$RECIPE"); else read -ra files <<<"$RECIPE"; fi
for file in "${files[@]}"; do
    stage+=(--recipe "$(realpath -e "$file")")
done
read -ra more <<<"${ARGS:-}"
read -ra sbatch_args <<<"${SBATCH_ARGS:-}"
read -ra gpu_args <<<"${GPU_ARGS:-}"
mkdir -p "$run/logs"

# Slurm ends the batch shell with the program; this one outlives it, to ask for another start where work is left.
job='trap "kill -USR1 \$child 2>/dev/null" USR1
trap "ended=1" TERM
"$@" --threads "${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}" & child=$!
while wait "$child"; code=$?; kill -0 "$child" 2>/dev/null; do :; done
if [ "$code" -eq 75 ] && [ -z "${ended:-}" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID"; sleep 60
fi
exit "$code"'

submit() { # NAME DEPENDENCIES SBATCH_OPTION_OR_EMPTY... -- PROGRAM ARGUMENTS...
    local name=$1 after=$2 options=() id
    shift 2
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    id=$(sbatch --parsable --requeue --open-mode=append --signal=B:USR1@120 --kill-on-invalid-dep=yes ${after:+--dependency=afterok:$after} \
        --job-name="$(basename "$run")/$name" --output="$run/logs/$name.log" "${sbatch_args[@]}" "${options[@]}" \
        <<<"#!/usr/bin/env bash
set -- $(printf '%q ' "$bin/$1" "${@:2}" "${more[@]}")
$job")
    echo "${id%%;*} $name: $run/logs/$name.log" >&2
    echo "${id%%;*}"
}

graph=$(submit import "" -- dsom-import "${stage[@]}" --raw "$(realpath "$RAW")")
features=$(submit features "$graph" "${gpu_args[@]}" -- dsom-features "${stage[@]}" \
    ${TEXT_MODEL:+--text-model "$TEXT_MODEL"} ${IMAGE_MODEL:+--image-model "$IMAGE_MODEL"})
ready=$features
for modality in ${MODALITIES:-}; do
    teacher=$(submit "teacher-$modality" "$features" "${gpu_args[@]}" -- dsom-teachers "${stage[@]}" --modality "$modality")
    ready+=:$teacher
done
# Every teacher of the recipe, so that none is left out: those that are there already are fresh.
ready=$(submit teachers "$ready" "${gpu_args[@]}" -- dsom-teachers "${stage[@]}")
labels=$(submit soft-labels "$ready" "${gpu_args[@]}" -- dsom-soft-labels "${stage[@]}")
student=$(submit student "$labels" "${gpu_args[@]}" -- dsom-distill "${stage[@]}")
submit evaluation "$student" -- dsom-evaluate "${stage[@]}"
