#!/usr/bin/env bash
# horovodrun: ranks on this host, or on several that this one reaches by ssh without a password, each with the project
# and the data at the same path. Copy this file and change it.
#
#   scripts/launch/horovodrun.sh                               two ranks here
#   HOSTS=node1:4,node2:4 scripts/launch/horovodrun.sh         four ranks on each of two hosts
#   CONFIG=my.yaml scripts/launch/horovodrun.sh --resume       options go to tfinpaint.pretrain
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ ! -e .venv ]] || source .venv/bin/activate

hosts=${HOSTS:-localhost:2} # host:ranks,host:ranks
config=${CONFIG:-configs/demo/pretrain.yaml}
[[ $hosts =~ ^[^:,]+:[0-9]+(,[^:,]+:[0-9]+)*$ ]] || { echo "HOSTS=$hosts: expected host:ranks,host:ranks" >&2; exit 2; }
ranks=$(tr , '\n' <<<"$hosts" | awk -F: '{ranks += $2} END {print ranks}')

# --gloo needs no MPI; without it horovodrun takes MPI where Horovod was built with it. It passes the whole environment on.
# On hosts with several networks: --network-interfaces eth0 names the one that all share.
launch=(horovodrun --gloo -np "$ranks" -H "$hosts")

"${launch[@]}" python -m tfinpaint.canary --ranks "$ranks" # half a minute that tells a wrong set-up from a wrong run
exec "${launch[@]}" python -m tfinpaint.pretrain --config "$config" "$@"
