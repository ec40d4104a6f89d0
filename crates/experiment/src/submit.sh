
# One Slurm job for each `submit` below, unless the queue has it. This script may be edited and run; run again, it does no harm.
command -v sbatch >/dev/null || { echo "there is no sbatch: run this where jobs are submitted" >&2; exit 66; }
mkdir -p "$out/logs"
exec 9>"$out/logs/lock"
flock 9 || echo "no locks on this file system: run this once at a time" >&2
"${plan[@]}"

declare -A id # Numbers of jobs by name, of an earlier call too.
queue=$(squeue --me --noheader --format='%F %k')
while read -r number comment; do
    case $comment in "$out"/*) id[${comment#"$out"/}]=$number ;; esac
done <<<"$queue"

# What a job runs. USR1 comes to this shell ahead of the time limit or of preemption, TERM when Slurm ends the job itself: then the
# program has it too, and this shell only outlives it. A program that ends with 75 has work left, and the job is queued again.
read -rd '' job <<'JOB' || true
self=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    self=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    set -- "$@" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_MAX"
fi
export SLURM_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}"
trap 'kill -USR1 "$child" 2>/dev/null' USR1
trap 'ended=1' TERM
"$@" & child=$!
while wait "$child"; code=$?; kill -0 "$child" 2>/dev/null; do :; done
echo "job $self on $SLURMD_NODENAME: ended with $code${ended:+, by Slurm}" >&2
if [ "$code" -eq 75 ] && [ -z "${ended:-}" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    scontrol requeue "$self"
    sleep 60
fi
exit "$code"
JOB

numbers() { # NAME...: those that have one, each after a colon
    local name
    for name in "$@"; do printf '%s' "${id[$name]:+:${id[$name]}}"; done
}

check() { # OPTION_OF_SBATCH...: refuses now what Slurm would refuse
    local said
    said=$(sbatch --test-only "$@" <<<'#!/bin/sh' 2>&1) || { echo "$said" >&2; exit 2; }
}

submit() { # NAME --needs=NAMES --after=NAMES --setup=COMMANDS OPTION_OF_SBATCH... -- COMMAND...
    local name=$1 needs='' after='' setup='' depends log options=()
    log=${out//%/%%}/logs/${name//\//-}.log
    while shift && [ "$1" != -- ]; do
        case $1 in
            --needs=*) needs=${1#*=} ;;
            --after=*) after=${1#*=} ;;
            --setup=*) setup=${1#*=} ;;
            --array=*) options+=("$1") log+=.%a ;;
            *) options+=("$1") ;;
        esac
    done
    shift
    if [ "$name" = tables ] && [ -n "${new:-}" ] && [ -n "${id[tables]:-}" ]; then
        scancel "${id[tables]}" # It would not wait for the new ones.
        unset 'id[tables]'
    fi
    [ -z "${id[$name]:-}" ] || { echo "${id[$name]} $name is in the queue" >&2; return; }
    # shellcheck disable=SC2086
    needs=$(numbers $needs) after=$(numbers $after)
    depends=${needs:+,afterok$needs}${after:+,afterany$after}
    new=$(sbatch --parsable --requeue --open-mode=append --signal=B:USR1@120 --kill-on-invalid-dep=yes ${depends:+--dependency="${depends#,}"} \
        --job-name="${out##*/}" --comment="$out/$name" --output="$log" "${options[@]}" <<<"#!/usr/bin/env bash
$setup
set -- $(printf '%q ' "$@")
$job")
    id[$name]=${new%%;*}
    echo "${id[$name]} $name: $log" >&2
}

