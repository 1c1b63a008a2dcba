#!/bin/bash
#SBATCH --job-name=podscale
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
# A minute before the end, or when the job is pre-empted: save and stop.
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append

# Set these two; both folders must be seen by all nodes.
IMAGES=${IMAGES:-/mnt/imagenet}
WORKDIR=${WORKDIR:-/mnt/runs/$SLURM_JOB_NAME}

srun --kill-on-bad-exit=1 python3 -m podscale.train "${PRESET:-b5-64k}" \
  --distributed on --data.path "$IMAGES" --workdir "$WORKDIR"
