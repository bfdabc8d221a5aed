#!/bin/bash
# Starts the service as nixos/tests/two-nodes.nix has it, on a machine of two NUMA nodes, and looks at where
# it runs and where its memory lies. Runs as root; nixos/system.rs makes what it needs in /payload:
#   store/     what was built, whose place is the one that `store` names
#   system     a file with the path of what a system gets
#   lib/       libraries of the program
#   holds.sh, activate.sh   parts of this
# An emulated machine is slow: whatever takes its time has much of it.
set -u
export LC_ALL=C.UTF-8 SYSTEMD_PAGER='' SYSTEMD_COLORS=0
cd /payload || exit 1
mkdir -p out
exec >out/log 2>&1

unit=operation-dbus.service
# shellcheck source=tests/system/holds.sh
source ./holds.sh

prepare() {
    local store
    store=$(cat store-path)
    mkdir -p "$store" /var/lib/op-dbus /usr/share/dbus-1/system-services
    mount --bind store "$store"
    cp --no-clobber lib/* /usr/lib/x86_64-linux-gnu/
    ldconfig
    modprobe btrfs
    mount -t btrfs -o compress=zstd:3,user_subvol_rm_allowed /dev/disk/by-label/opbtrfs /var/lib/op-dbus ||
        mount -t btrfs -o compress=zstd:3,user_subvol_rm_allowed /dev/vdc /var/lib/op-dbus
}

prepare
# shellcheck source=tests/nixos/activate.sh
source ./activate.sh

status_of() { grep "^$1:" "/proc/$process/status"; }

# Pages on the first node of memory that is bound to the second.
strays() { grep -w bind:1 "/proc/$process/numa_maps" | grep -c ' N0='; }

test_machine() {
    holds 'there are two nodes' [ "$(cat /sys/devices/system/node/online)" = 0-1 ]
    holds 'it starts' systemctl start "$unit"
    process=$(property MainPID)
    holds 'numa.cpuList: it runs on these CPUs' says $'Cpus_allowed_list:\t2-3' status_of Cpus_allowed_list
    holds 'numa.enable: systemd binds its memory' has NUMAPolicy bind
    holds 'numa.node: to the second node' has NUMAMask 1
    holds 'a text is searched for' soon 300 op-dbus --bus system query 'set the name of this machine'
    holds 'numa.node: what is hot is bound to the second node' grep -qw bind:1 "/proc/$process/numa_maps"
    holds 'numa.node: none of it lies on the first' [ "$(strays)" -eq 0 ]
    holds 'numa.node: other memory prefers it' grep -qw prefer:1 "/proc/$process/numa_maps"
    holds 'stats has the same' says '"nodes":[1]' op-dbus --bus system stats --json
    holds 'BTRFS has subvolumes' btrfs subvolume show /var/lib/op-dbus/@state
    numastat -p "$process" | tail -n 4
    grep -w bind:1 "/proc/$process/numa_maps"
}

activate
test_machine
if sum_up; then echo yes >out/passed; fi
