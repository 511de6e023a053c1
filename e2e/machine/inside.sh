#!/usr/bin/env bash
# In the machine: the stories, as root; then what docs/rootless.md promises, as an ordinary user with a session of systemd. Prints a line for
# each thing that held or did not.
#
#   inside.sh [STORY...]     a program of this folder's bin/, and perhaps the name of one test: `node`, `services:names`; `user` for the user's part
set -u
here=$(cd "$(dirname "$0")" && pwd)
export PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin
# Where device files work, as in /tmp they do not.
export TMPDIR=/var/tmp
export CLAWBERNETES_BIN=/usr/local/bin/clawbernetes CLAW_TEST_NEEDS=all RUST_BACKTRACE=1
cp "$here/clawbernetes" "$here/kubectl" /usr/local/bin/

held() { echo "held: $*"; }
failed() { echo "FAILED: $*"; }

# check NAME COMMAND...: until the command succeeds, for three minutes.
check() {
    local name=$1 last end=$((SECONDS + 180))
    shift
    until last=$("$@" 2>&1); do
        [ $SECONDS -lt $end ] || { failed "$name: $last"; return 1; }
        sleep 1
    done
    held "$name"
}

# story PROGRAM[:TEST]
story() {
    local program=${1%%:*} test=
    case $1 in *:*) test=${1#*:} ;; esac
    # A name may be told after what its test has said.
    if timeout 3000 "$here/bin/$program" --test-threads 1 ${test:+"$test"} 2>&1 | tee "/tmp/$program.log" |
        grep --line-buffered -E '\.\.\. |^SKIPPED'; (exit "${PIPESTATUS[0]}"); then
        held "$1: $(grep '^test result' "/tmp/$program.log")"
    else
        failed "$1"
        sed -n '/^failures:/,$p' "/tmp/$program.log" | head -c "${SHOWN:-20000}"
    fi
}

# as_user COMMAND...: in the session that lingers.
as_user() {
    runuser -u worker -- env HOME=/home/worker XDG_RUNTIME_DIR="/run/user/$(id -u worker)" PATH="$PATH" \
        KUBECONFIG=/home/worker/.local/share/clawbernetes/admin.kubeconfig "$@"
}
kubectl_says() { [[ $(as_user kubectl "${@:2}" 2>&1) == $1 ]] || { as_user kubectl "${@:2}"; return 1; }; }
ends_with() { kubectl_says "*$2" get pod "$1" -o "jsonpath={.status.containerStatuses[0].state.terminated.reason}"; }
gets() { as_user kubectl exec caller -- /toolbox get "$1"; }

the_user() {
    local address=192.0.2.1 before
    # Somewhere outside that pods can call, on a machine without a network.
    ip link add outside type dummy && ip address add $address/24 dev outside && ip link set outside up
    check "the user has a session" as_user systemctl --user list-units
    install -d -o worker -g worker /home/worker/.config/systemd/user
    sed 's/^    //' >/home/worker/.config/systemd/user/clawbernetes.service <<'    UNIT'
    [Service]
    ExecStart=/usr/local/bin/clawbernetes up
    Delegate=yes
    KillMode=process
    UNIT
    as_user systemctl --user daemon-reload
    as_user systemctl --user start clawbernetes
    check "a node of the user's is ready" as_user kubectl wait --for=condition=Ready node --all --timeout=60s
    check "limits are enforced" kubectl_says True get node -o 'jsonpath={.items[0].status.conditions[?(@.type=="LimitsEnforced")].status}'
    check "pods can be made" as_user kubectl apply -f "$here/user.yaml"
    check "they run" as_user kubectl wait --for=condition=Ready pod/caller pod/outside pod/worker --timeout=60s
    check "who takes too much memory is killed for it" ends_with greedy OOMKilled
    check "the kernel keeps a pod to its share of the processors" \
        grep -rqs '^50000 100000' --include=cpu.max "/sys/fs/cgroup/user.slice/user-$(id -u worker).slice"
    check "a container finds its limit" kubectl_says 67108864 exec worker -- /toolbox cat /sys/fs/cgroup/memory.max
    check "what pods use is known" kubectl_says '*worker*m*Mi*' top pod worker --no-headers
    check "pods have a way out" gets "http://$address:28090/"
    check "a pod has a name for others" gets http://worker/
    check "a port of the machine leads to its pod" curl_like 127.0.0.1 28091
    before=$(pgrep -u worker -f '^/toolbox serve')
    as_user systemctl --user restart clawbernetes
    check "the node is ready again" as_user kubectl wait --for=condition=Ready node --all --timeout=60s
    same "containers outlive a restart by systemd" "$before" "$(pgrep -u worker -f '^/toolbox serve')"
    check "limits are enforced still" kubectl_says True get node -o 'jsonpath={.items[0].status.conditions[?(@.type=="LimitsEnforced")].status}'
    check "the way out is open still" gets "http://$address:28090/"
    as_user systemctl --user kill --kill-whom=main -s KILL clawbernetes
    as_user systemctl --user start clawbernetes
    check "the node is ready after a kill" as_user kubectl wait --for=condition=Ready node --all --timeout=60s
    same "containers outlive a kill" "$before" "$(pgrep -u worker -f '^/toolbox serve')"
    as_user kubectl delete -f "$here/user.yaml" --now >/dev/null 2>&1
    as_user systemctl --user stop clawbernetes
    check "nothing is left" nothing_runs
}

same() { if [ -n "$2" ] && [ "$2" = "$3" ]; then held "$1"; else failed "$1: before $2, now $3"; fi; }
nothing_runs() { ! pgrep -u worker -fa 'claw|toolbox|slirp4netns'; }
curl_like() { timeout 5 bash -c "exec 3<>/dev/tcp/$1/$2 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && grep -q GET <&3"; }

for one in "$@"; do
    echo "--- $one"
    if [ "$one" = user ]; then the_user; else story "$one"; fi
done
echo "--- done: $(uname -r), $(systemctl --version | head -1), up for ${SECONDS} s"
