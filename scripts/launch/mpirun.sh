#!/usr/bin/env bash
# mpirun (Open MPI 5): ranks on this host, or on several that this one reaches by ssh without a password, each with the
# project and the data at the same path. Copy this file and change it.
#
#   scripts/launch/mpirun.sh                               two ranks here
#   HOSTS=node1:4,node2:4 scripts/launch/mpirun.sh         four ranks on each of two hosts
#   CONFIG=my.yaml scripts/launch/mpirun.sh --resume       options go to tfinpaint.pretrain
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ ! -e .venv ]] || source .venv/bin/activate

hosts=${HOSTS:-localhost:2} # host:ranks,host:ranks
config=${CONFIG:-configs/demo/pretrain.yaml}
[[ $hosts =~ ^[^:,]+:[0-9]+(,[^:,]+:[0-9]+)*$ ]] || { echo "HOSTS=$hosts: expected host:ranks,host:ranks" >&2; exit 2; }
ranks=$(tr , '\n' <<<"$hosts" | awk -F: '{ranks += $2} END {print ranks}')

launch=(
  mpirun -np "$ranks" -H "$hosts"
  # By itself mpirun ties each of two ranks to one core, whatever the host has.
  --bind-to none --map-by slot
  # Other hosts get no more of the environment than OMPI_* and what is named here.
  -x PATH
)
# Variables of these kinds are passed on where they are set.
for name in $(compgen -e | grep -E '^(HOROVOD|NCCL|TF)_|^(LD_LIBRARY_PATH|PYTHONPATH|XLA_FLAGS)$'); do
  launch+=(-x "$name")
done
# On hosts with several networks, name the one that all share:
# launch+=(--mca btl_tcp_if_include eth0 --prtemca prte_if_include eth0)

"${launch[@]}" python -m tfinpaint.canary --ranks "$ranks" # half a minute that tells a wrong set-up from a wrong run
exec "${launch[@]}" python -m tfinpaint.pretrain --config "$config" "$@"
