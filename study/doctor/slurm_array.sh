#!/bin/bash
# Tasks that share the trials of a study. Submit this file with sbatch.
#SBATCH --job-name=gnc-{job} --output=gnc-{job}-%A_%a.log --open-mode=append
#SBATCH --chdir="{folder}"
#SBATCH --array=0-{last} --nodes=1 --ntasks=1 --cpus-per-task={cpus} --time={time}
#SBATCH --signal=B:USR1@{warning} --requeue {more}

[ "$PWD" -ef {here} ] || {{ echo "the folder of gnc slurm must be shared by all nodes, this one has no" {here} >&2; exit 2; }}
unset POSIXLY_CORRECT  # with it bash would forget how the run ended
unset RAY_ADDRESS  # each task starts a Ray of its own, with a folder and ports of its own
export {variable}="$PWD/gnc-{job}-${{SLURM_ARRAY_JOB_ID}}_"  # where the tasks see each other's logs

run= asked=
trap 'asked=1; kill -USR1 "$run" 2>/dev/null' USR1  # the time limit is near: running trials keep their checkpoints
trap 'kill -TERM "$run" 2>/dev/null' TERM  # scancel or preemption: likewise, and not again into the queue
{command} &
run=$!
while kill -0 "$run" 2>/dev/null; do wait "$run"; done
wait "$run"; outcome=$?
case "$asked:$outcome" in
    1:0 | 1:2) ;;  # all is done, or refused
    1:*) scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID" ;;  # trials are left: this task goes on later
esac
exit "$outcome"
