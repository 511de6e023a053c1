#!/usr/bin/env bash
# Boots a small Debian of its own in qemu, a machine as most are today (version 2 of control groups alone, systemd, an ordinary user with a session of
# their own), and has the stories tell there what holds. Prints it, and fails when something did not hold.
#
#   run.sh [STORY...]     see inside.sh; by default those about containers, and the user's part
#
# ACCEL=kvm|tcg says how (default: kvm where there is /dev/kvm; without it everything takes ten times as long), MINUTES=n for how long at most,
# SUITE=name which Debian. The image is kept in target/machine and made anew when it is removed. Needs root, for debootstrap.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/e2e/machine work=$PWD/target/machine suite=${SUITE:-trixie}
stories=("$@")
[ $# -gt 0 ] || stories=(node services leaks rootless kubectl_top user)

skipped() { echo "SKIPPED machine: $*" >&2; exit 0; }
for program in qemu-system-x86_64 debootstrap mke2fs strip; do
    command -v $program >/dev/null || skipped "$program is not here; Debian's packages are qemu-system-x86, debootstrap, e2fsprogs, binutils"
done
[ "$(uname -m)" = x86_64 ] || skipped "it is made for x86-64"
[ "$(id -u)" = 0 ] || skipped "debootstrap needs root"
kubectl=$(readlink -f "$(command -v kubectl || echo .tools/kubectl)")
[ -x "$kubectl" ] || skipped "there is no kubectl (run \`make deps\`)"

# base: the Debian, with a unit that runs what is on the second disk.
base() {
    local root=$work/root
    rm -rf "$root"
    debootstrap --variant=minbase --include="$(paste -sd, <<<"systemd-sysv
dbus
dbus-user-session
libpam-systemd
linux-image-cloud-amd64
nftables
iproute2
conntrack
slirp4netns
uidmap
procps
kmod
udev
ca-certificates
mesa-vulkan-drivers
docker-registry")" "$suite" "$root"
    echo machine >"$root/etc/hostname"
    echo '127.0.0.1 localhost machine' >"$root/etc/hosts"
    chroot "$root" useradd --create-home --shell /bin/bash worker
    mkdir -p "$root/var/lib/systemd/linger" "$root/etc/systemd/system/user@.service.d"
    touch "$root/var/lib/systemd/linger/worker"
    printf '[Service]\nDelegate=cpu cpuset io memory pids\n' >"$root/etc/systemd/system/user@.service.d/delegate.conf"
    sed 's/^    //' >"$root/etc/systemd/system/stories.service" <<'    UNIT'
    [Unit]
    After=multi-user.target
    [Service]
    Type=oneshot
    Environment=HOME=/root
    Delegate=yes
    KillMode=process
    ExecStart=/bin/bash -c 'mkdir -p /stories && mount LABEL=stories /stories && exec bash /stories/begin.sh'
    ExecStopPost=systemctl --force poweroff
    StandardOutput=file:/dev/ttyS1
    StandardError=inherit
    UNIT
    mkdir -p "$root/etc/systemd/system/graphical.target.wants"
    ln -s ../stories.service "$root/etc/systemd/system/graphical.target.wants/"
    chroot "$root" systemctl mask docker-registry serial-getty@ttyS0 apt-daily.timer apt-daily-upgrade.timer
    cp "$root"/boot/vmlinuz-* "$work/vmlinuz"
    cp "$root"/boot/initrd.img-*-amd64 "$work/initrd"
    mke2fs -q -F -t ext4 -d "$root" "$work/base.new" 8G
    rm -rf "$root"
    mv "$work/base.new" "$work/base.img"
}

# second_disk: the programs, without what only debuggers read; and where the tests look for their examples.
second_disk() {
    local disk=$work/disk name program
    rm -rf "$disk"
    mkdir -p "$disk/bin" "$disk/tree"
    cargo build --locked --workspace --bins --tests
    strip -o "$disk/clawbernetes" target/debug/clawbernetes
    cargo test --locked --workspace --no-run --message-format=json 2>/dev/null |
        sed -n 's/.*"kind":\["\(lib\|test\)"\].*"name":"\([a-z_-]*\)","src_path".*"executable":"\([^"]*\)".*/\2 \3/p' |
        while read -r name program; do strip -o "$disk/bin/$name" "$program"; done
    cp "$kubectl" "$disk/kubectl"
    cp -r examples "$disk/tree/"
    cp "$here/inside.sh" "$here/user.yaml" "$disk/"
    cat >"$disk/begin.sh" <<BEGIN
mkdir -p '$(dirname "$PWD")' && ln -s /stories/tree '$PWD'
bash /stories/inside.sh ${stories[*]}
sync
BEGIN
    rm -f "$work/disk.img"
    mke2fs -q -F -t ext4 -L stories -d "$disk" "$work/disk.img" 4G
}

mkdir -p "$work"
[ -e "$work/base.img" ] || base >"$work/base.log" 2>&1 || { tail -5 "$work/base.log"; exit 1; }
second_disk
accel=${ACCEL:-$([ -w /dev/kvm ] && echo kvm || echo tcg)}
cpu=max
[ "$accel" = kvm ] && cpu=host
rm -f "$work/said"
timeout "${MINUTES:-120}m" qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -smp 2 -m 6G -nodefaults -display none -no-reboot \
    -kernel "$work/vmlinuz" -initrd "$work/initrd" -append "root=/dev/vda rw console=ttyS0 quiet panic=-1" \
    -drive "file=$work/base.img,if=virtio,format=raw,cache=unsafe,snapshot=on" \
    -drive "file=$work/disk.img,if=virtio,format=raw,cache=unsafe" \
    -device virtio-rng-pci -serial "file:$work/console" -serial "file:$work/said" </dev/null &
qemu=$!
tail --pid=$qemu --retry -qF "$work/said" 2>/dev/null || true
wait $qemu || true
grep -q '^--- done' "$work/said" || { echo "the machine did not get to the end; its console is $work/console; ACCEL=tcg does without /dev/kvm"; exit 1; }
! grep -q '^FAILED' "$work/said"
