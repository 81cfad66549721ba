#!/bin/bash
# A fit that survives preemption and time limits: sbatch experiments/slurm.sh --config experiments/resnet20_cifar10.yaml
#SBATCH --job-name=fathom
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@120

# The job keeps its number when it is requeued, and the run its directory.
runs=runs/slurm-$SLURM_JOB_ID
for directory in "$runs"/*/*/; do run=$directory; done

if [ -f "${run}config.yaml" ]; then
    srun fathom resume "$run"
else
    srun fathom fit "$@" --trainer.default_root_dir "$runs" \
        --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE"
fi
code=$?

# 75: a signal came, the checkpoint is written, and there is more to do.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
