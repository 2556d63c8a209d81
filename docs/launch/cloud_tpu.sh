#!/usr/bin/env bash
# Cloud TPU VM: the same command on every worker of a slice; JAX finds the others itself.
# Run it again after a preemption: it goes on with what is in the shared folder.
set -euo pipefail

TPU=${TPU:-rpjax}
ZONE=${ZONE:-us-central2-b}

on_all_workers() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

on_all_workers 'pip install -q "rpjax[tpu]"'
# /shared: a Filestore or a bucket, mounted on every worker
on_all_workers 'rpjax train --data cifar10 --data-dir /shared/data --size full --method strategy1 --out /shared/out --resume'
