#!/usr/bin/env bash
# A cluster on this machine with everything in examples/ in it, and nothing left of it afterwards.
#
# By itself it shows the cluster at work and ends. KEEP=1 leaves it running until Ctrl-C, or until its standard
# input ends when that is not a terminal.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -t 2 ] && bold=$'\033[1m' plain=$'\033[0m' || bold= plain=
say() { printf '\n%s\n' "$bold$*$plain" >&2; }

if [ "$(id -u)" != 0 ]; then
    echo "demo: containers need root; run: sudo -E env \"PATH=\$PATH\" make demo" >&2
    exit 1
fi

say "building (the first time takes some minutes)"
# Progress for who watches; a log is spared the list of crates.
[ -t 2 ] && quiet=() || quiet=(--quiet)
# The selection of e2e/src/binary.rs, so that `make demo` and `make test` build each dependency once.
cargo build "${quiet[@]}" --locked --workspace --bins --test tidy
binary="${CARGO_TARGET_DIR:-target}/debug/clawbernetes"
scratch=$(mktemp -d /tmp/claw-demo-XXXXXX)
server=

finish() {
    trap - EXIT INT TERM
    if [ -n "$server" ]; then
        say "stopping: pods are deleted, nothing stays behind"
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" || true
    fi
    rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

say "clawbernetes up"
mkfifo "$scratch/ready"
# In its own session: Ctrl-C reaches this script, which then stops the cluster in order. It shows what it can do, also on a
# machine whose disk is nearly full.
setsid "$binary" up --rm --data-dir "$scratch/data" --listen "${LISTEN:-127.0.0.1:0}" \
    --evict-below memory=0 --evict-below disk=0 --evict-below pids=0 \
    >"$scratch/ready" 2>"$scratch/log" &
server=$!
if ! read -r line <"$scratch/ready"; then
    cat "$scratch/log" >&2
    exit 1
fi
echo "$line"
export KUBECONFIG="$scratch/data/admin.kubeconfig"

# Real kubectl where there is one; the binary has the same verbs where there is none.
if command -v kubectl >/dev/null; then
    kube=(kubectl --cache-dir "$scratch/cache")
    say "kubectl apply -f examples/"
else
    kube=("$binary")
    say "clawbernetes apply -f examples/    (no kubectl on this machine)"
fi
"${kube[@]}" apply -f examples/
"${kube[@]}" wait --for=condition=Available deployment/hello --timeout=180s
"${kube[@]}" wait --for=condition=Ready pod/busy --timeout=180s
# The pod is over as soon as it has spoken, so there is no condition to wait for but its words.
for _ in $(seq 100); do
    "${kube[@]}" logs init -c main >/dev/null 2>&1 && break
    sleep 0.2
done

say "get nodes, get all"
"${kube[@]}" get nodes
"${kube[@]}" get all

say "logs deployment/hello, logs init"
"${kube[@]}" logs deployment/hello --tail=5
"${kube[@]}" logs init -c main

if [ -n "${KEEP:-}" ]; then
    say "it is yours until Ctrl-C; in another terminal:"
    printf '    export KUBECONFIG=%s\n    kubectl scale deployment hello --replicas 5\n    kubectl get pods -w\n' "$KUBECONFIG"
    if [ -t 0 ]; then wait "$server"; else cat >/dev/null; fi
else
    say "to go on with such a cluster: make demo KEEP=1"
fi
