#!/usr/bin/env bash
# What `clip-jax launch` runs on each worker of a slice, in ~/clip-jax:
#
#   worker.sh install EXTRAS     the source tree, unpacked in source/, into the environment venv/
#   worker.sh start train ...    ends what runs, and starts `clip-jax train ...` as a systemd unit
#   worker.sh state              worker HOST STATE RUN: an exit code, active, absent or stopped; a checksum of the command
#   worker.sh watch BYTE         state STATE SIZE, then the log from that byte on (-1: its last 4000 bytes)
#   worker.sh last LINES         the end of the log, if training failed here
#   worker.sh stop               SIGTERM to the training; returns when its checkpoint is saved
set -euo pipefail

script=$(realpath "${BASH_SOURCE[0]}")
folder=${CLIP_JAX_FOLDER:-$HOME/clip-jax}
unit=clip-jax-train
mkdir -p "$folder"
cd "$folder"

install() {
    export PATH="$HOME/.local/bin:$PATH"
    # The images have Ubuntu's Python, 3.10 in most; uv brings the one that the package needs.
    command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
    [ -x venv/bin/python ] || uv venv --quiet --python 3.12 venv
    # A run that begins again after a preemption, or years later, computes with the same versions as before: those that
    # there were when the source tree was committed.
    uv pip install --quiet --python venv/bin/python --exclude-newer "$(cat "$folder.date")" "./source[$1]"
}

start() {
    sudo systemctl stop "$unit" 2>/dev/null || true
    rm -f exit stopped
    printf '%s' "$*" >command
    # A unit of its own: it outlives the connection, gets SIGTERM while the network is still up when the machine is
    # shut down, may lock the memory that the TPU's driver maps, and may open as many files as there are shards.
    sudo systemd-run --quiet --collect --unit="$unit" --uid="$(id -u)" --gid="$(id -g)" --setenv=HOME="$HOME" \
        --property=After=network-online.target --property=TimeoutStopSec=300 \
        --property=LimitMEMLOCK=infinity --property=LimitNOFILE=1048576 \
        bash "$script" supervise "$@"
}

supervise() { # the unit itself
    trap : TERM # the training gets it too, and its exit code is still written
    if [ -e "$folder.wandb-key" ]; then
        WANDB_API_KEY=$(cat "$folder.wandb-key")
        export WANDB_API_KEY
    fi
    code=0
    (cd source && PYTHONUNBUFFERED=1 exec ../venv/bin/clip-jax "$@") >>log 2>&1 || code=$?
    if [ -e stopped ]; then code=stopped; fi
    echo "$code" >exit.new
    mv exit.new exit
}

condition() {
    if [ -e exit ]; then
        cat exit
    elif systemctl is-active --quiet "$unit"; then
        echo active
    elif [ -e exit ]; then # it ended between the two questions
        cat exit
    else
        echo absent
    fi
}

state() {
    run=$(if [ -e command ]; then sha256sum <command | cut -c 1-12; else echo none; fi)
    echo "worker $(hostname) $(condition) $run"
}

watch() {
    now=$(condition)
    size=$(if [ -e log ]; then wc -c <log | tr -d ' '; else echo 0; fi)
    from=$1
    if [ "$from" -lt 0 ]; then from=$((size > 4000 ? size - 4000 : 0)); fi
    if [ "$from" -gt "$size" ]; then from=0; fi
    echo "state $now $size"
    if [ "$size" -gt "$from" ]; then tail -c "+$((from + 1))" log | head -c "$((size - from))"; fi
}

last() {
    if [ "$(condition)" != 0 ] && [ -e log ]; then tail -n "$1" log | sed "s/^/$(hostname): /"; fi
}

stop() {
    if systemctl is-active --quiet "$unit"; then touch stopped; fi
    sudo systemctl stop "$unit" 2>/dev/null || true
}

"$@"
