#!/usr/bin/env bash
# Installs what is needed here, and only what is missing.
#
#   deps.sh build    what building needs: a C compiler, pkg-config, libseccomp-dev (the container runtime links it);
#                    and nftables, by which a node routes services
#   deps.sh          the same, and what only tests and benchmarks use:
#     .tools/kubectl   Debian's kubectl 1.20, the oldest client that is tested; beside any other kubectl
#     .tools/venv      the Python client and kopf, which are tested
#     crun             the runtime that the container benchmark compares with
#     iproute2, util-linux   a network of its own for a machine that can only dial out
#     docker-registry  a registry to pull images from
#     uidmap           ids for the containers of an ordinary user
#     slirp4netns      the way out of their network
#     mesa-vulkan-drivers  a Vulkan device that calculates on the CPU
#     .tools/cuda      NVIDIA's compiler and CUDA's headers, by which kernels are compiled without a GPU
#
# What only tests use may stay away: they say SKIPPED, and so does this, without failing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'deps: %s\n' "$*" >&2; }

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)

# apt_update: once, and only when something has to be installed.
apt_update() {
    [ -e .tools/.apt-updated ] && return
    say "refreshing the package lists"
    "${sudo[@]}" apt-get update -qq && touch .tools/.apt-updated
}

# install PACKAGE...
install() {
    if ! command -v apt-get >/dev/null; then
        say "this machine has no apt-get; install by hand what Debian calls: $*"
        return 1
    fi
    apt_update
    say "installing $*"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

old_kubectl() {
    [ -x .tools/kubectl ] && return
    command -v apt-get >/dev/null || return
    say "unpacking Debian's kubectl into .tools/"
    download_kubectl 2>/dev/null || { apt_update && download_kubectl; } || return
    dpkg -x .tools/kubernetes-client_*.deb .tools/debian || return
    ln -sf debian/usr/bin/kubectl .tools/kubectl
    rm -f .tools/kubernetes-client_*.deb
}

download_kubectl() { (cd .tools && apt-get download -qq kubernetes-client); }

python_client() {
    cmp -s e2e/requirements.txt .tools/venv/requirements.txt && return
    say "installing the Python client and kopf into .tools/venv"
    rm -rf .tools/venv
    python3 -m venv .tools/venv || { install python3 python3-venv && python3 -m venv .tools/venv; } || return
    .tools/venv/bin/pip install -q --disable-pip-version-check -r e2e/requirements.txt || return
    cp e2e/requirements.txt .tools/venv/requirements.txt
}

# The versions belong together; the newest that the drivers of our GPUs take.
cuda=(nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cuda-crt==13.0.88)

cuda_compiler() {
    [ "$(cat .tools/cuda/versions 2>/dev/null)" = "${cuda[*]}" ] && return
    say "installing NVIDIA's compiler into .tools/cuda"
    rm -rf .tools/cuda
    .tools/venv/bin/pip install -q --disable-pip-version-check --no-deps --target .tools/cuda "${cuda[@]}" || return
    printf '%s\n' "${cuda[*]}" >.tools/cuda/versions
}

mkdir -p .tools
if ! command -v cargo >/dev/null; then
    say "Rust is not installed, or not on the PATH: see https://rustup.rs"
    exit 1
fi
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v pkg-config >/dev/null || missing+=(pkg-config)
[ -e /usr/include/seccomp.h ] || missing+=(libseccomp-dev)
command -v nft >/dev/null || missing+=(nftables)
[ ${#missing[@]} = 0 ] || install "${missing[@]}"
[ "${1:-}" != build ] || exit 0

lacking=()
command -v crun >/dev/null || install crun || lacking+=(crun)
networks=()
command -v ip >/dev/null || networks+=(iproute2)
command -v nsenter >/dev/null && command -v unshare >/dev/null || networks+=(util-linux)
[ ${#networks[@]} = 0 ] || install "${networks[@]}" || lacking+=("${networks[@]}")
command -v newuidmap >/dev/null || install uidmap || lacking+=(uidmap)
command -v slirp4netns >/dev/null || install slirp4netns || lacking+=(slirp4netns)
command -v docker-registry >/dev/null || install docker-registry || lacking+=(docker-registry)
compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || install mesa-vulkan-drivers || lacking+=(mesa-vulkan-drivers)
old_kubectl || lacking+=("Debian's kubectl")
python_client || lacking+=("the Python client and kopf")
cuda_compiler || lacking+=("NVIDIA's compiler")
[ ${#lacking[@]} = 0 ] && say "everything is there" && exit 0
say "not here, so what needs it is skipped: $(printf '%s, ' "${lacking[@]}" | sed 's/, $//')"
