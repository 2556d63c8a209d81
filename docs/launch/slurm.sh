#!/usr/bin/env bash
# Slurm: two nodes of four GPUs, one task for each GPU (JAX gives each task one device).
# SIGTERM comes 120 s before the time limit; rpjax saves, ends with 75, and is requeued.
#SBATCH --job-name=rpjax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=rpjax-%j.log
set -uo pipefail

OUT=${OUT:-$SLURM_SUBMIT_DIR/out}   # on a file system that all nodes see

# not --gpus-per-task: JAX would then see device 0 only, and ask for others
srun --kill-on-bad-exit=1 \
  rpjax train --data cifar10 --data-dir "$SLURM_SUBMIT_DIR/data" --size full --method strategy1 --out "$OUT" --resume
status=$?

# stopped by SIGTERM and saved: the same job goes on from there
if [ "$status" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
