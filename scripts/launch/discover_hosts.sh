#!/usr/bin/env bash
# The hosts of an elastic run, as horovodrun --host-discovery-script wants them: a line host:ranks for each that may be
# used now. horovodrun calls this once a second. Copy this file and change it.
#
#   HOSTS_FILE=hosts.txt horovodrun --gloo ... --host-discovery-script scripts/launch/discover_hosts.sh ...
#
# The lines come from a file that you, or a scheduler, edit while the run goes: "node1:4" and so on; "#" starts a
# comment. Replace it whole (write another and mv it there): a list that is half written takes hosts away.
set -euo pipefail
file=${HOSTS_FILE:-hosts.txt}
sed -E 's/#.*//; s/[[:space:]]+//g; /^$/d' "$file"
