#!/usr/bin/env bash
# srun: Slurm finds the nodes, starts the ranks and shows their output here. For first tries; slurm.sbatch is for real
# runs. Copy this file and change it.
#
#   scripts/launch/slurm_srun.sh                                      two ranks on one node
#   CONFIG=my.yaml scripts/launch/slurm_srun.sh --resume              options go to tfinpaint.pretrain
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ ! -e .venv ]] || source .venv/bin/activate
config=${CONFIG:-configs/demo/pretrain.yaml}

# Open MPI asks Slurm for the other ranks through PMIx; `srun --mpi=list` has to name it. Where it does not: slurm.sbatch.
export PMIX_MCA_psec=native # Slurm also offers munge, which PyPI's Open MPI lacks and complains of at every start
launch=(srun --nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --mpi=pmix
  --kill-on-bad-exit=1 # when a rank dies, the others end as well instead of holding the nodes
)

exec "${launch[@]}" python -m tfinpaint.pretrain --config "$config" "$@"
