#!/usr/bin/env bash
# Slurm: a sweep as an array, one GPU for each job; the array's index is the job's number.
#   rpjax sweep docs/launch/sweep.yaml --out sweep
#   sbatch --array=0-17 docs/launch/slurm_sweep.sh
#   rpjax merge sweep
#SBATCH --job-name=rpjax-sweep
#SBATCH --ntasks=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=rpjax-sweep-%A-%a.log
set -uo pipefail

SWEEP=${SWEEP:-$SLURM_SUBMIT_DIR/sweep}

srun rpjax job "$SWEEP" "$SLURM_ARRAY_TASK_ID"
status=$?
if [ "$status" -eq 75 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
