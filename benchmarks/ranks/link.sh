#!/usr/bin/env bash
# link.sh PYTHON HOSTS RATE FLOATS SUMS: sums of so many float32 over hosts on this machine, each a
# network namespace behind a link of RATE, such as 1gbit, all on one bridge. Run it as root below
# `unshare -n`, so that nothing of it is left. Prints what `sums.py` does in each host, and the bytes
# that each host sent.
set -euo pipefail
python=$1 hosts=$2 rate=$3 floats=$4 sums=$5
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
waiting=()
trap 'kill "${waiting[@]}"; rm -rf "$folder"' EXIT

ip link add bridge0 type bridge
ip link set bridge0 up
for host in $(seq "$hosts"); do
    unshare -n sleep 600 &
    waiting+=($!)
    until [ "$(readlink "/proc/$!/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do :; done
    ip link add "link$host" type veth peer name eth0 netns "$!"
    ip link set "link$host" master bridge0 up
    nsenter -t "$!" -n ip addr add "10.0.0.$host/24" dev eth0
    nsenter -t "$!" -n ip link set eth0 up
    nsenter -t "$!" -n tc qdisc add dev eth0 root tbf rate "$rate" burst 128kb latency 50ms
done

addresses=$(for host in $(seq "$hosts"); do printf '["10.0.0.%s:5000"],' "$host"; done)
echo "[${addresses%,}]" >"$folder/hosts.json"
working=()
for rank in $(seq 0 $((hosts - 1))); do
    MLX_HOSTFILE="$folder/hosts.json" MLX_RANK=$rank \
        nsenter -t "${waiting[$rank]}" -n "$python" "$here/sums.py" "$floats" "$sums" &
    working+=($!)
done
for one in "${working[@]}"; do wait "$one"; done
for host in "${waiting[@]}"; do
    nsenter -t "$host" -n sed -n 's/^ *eth0://p' /proc/net/dev | awk '{print "{\"sent\":" $9 "}"}'
done
