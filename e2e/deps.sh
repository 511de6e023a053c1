#!/usr/bin/env bash
# Installs what building and testing need, and only what is missing.
#
#   libseccomp-dev   the container runtime links it
#   crun             the runtime that the container benchmark compares with
#   .tools/kubectl   Debian's kubectl 1.20, the oldest client that is tested; beside any other kubectl
#   .tools/venv      the Python client that is tested
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .tools

say() { printf 'deps: %s\n' "$*" >&2; }

# apt_update: once, and only when something has to be installed.
apt_update() {
    [ -e .tools/.apt-updated ] && return
    say "refreshing the package lists"
    "${sudo[@]}" apt-get update -qq && touch .tools/.apt-updated
}

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
[ -e /usr/include/seccomp.h ] || missing+=(libseccomp-dev)
command -v pkg-config >/dev/null || missing+=(pkg-config)
command -v crun >/dev/null || missing+=(crun)
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        say "this machine has no apt-get; install by hand: ${missing[*]}"
        exit 1
    fi
    apt_update
    say "installing ${missing[*]}"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

if [ ! -x .tools/kubectl ] && command -v apt-get >/dev/null; then
    say "unpacking Debian's kubectl into .tools/"
    (cd .tools && apt-get download -qq kubernetes-client 2>/dev/null) || { apt_update; (cd .tools && apt-get download -qq kubernetes-client); }
    dpkg -x .tools/kubernetes-client_*.deb .tools/debian
    ln -sf debian/usr/bin/kubectl .tools/kubectl
    rm -f .tools/kubernetes-client_*.deb
fi

if ! cmp -s e2e/requirements.txt .tools/venv/requirements.txt; then
    say "installing the Python client into .tools/venv"
    rm -rf .tools/venv
    python3 -m venv .tools/venv || {
        apt_update
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >&2
        python3 -m venv .tools/venv
    }
    .tools/venv/bin/pip install -q --disable-pip-version-check -r e2e/requirements.txt
    cp e2e/requirements.txt .tools/venv/requirements.txt
fi
say "everything is there"
