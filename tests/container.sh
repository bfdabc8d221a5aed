#!/bin/bash
# Runs a script as root in a Debian that systemd has booted in a container.
# Why: units, policies of the bus and of polkit, and what systemd says of itself on the bus, exist only
# where systemd is the first process.
# Usage: tests/container.sh [OPTION]... SHARED
#   SHARED is a directory with a file run.sh. In the container it is /op-dbus-test; run.sh runs in it,
#   and what it says comes into SHARED/log.
#   --rootfs DIR        a root file system with the packages below, which stays as it is
#   --bind FROM TO      show a file or directory of this machine in the container
#   --bind-ro FROM TO   the same, to be read only
#   --seconds N         how long it may all take once there is a root file system [120]
# Exits as run.sh did, 0 or 1; with 77 if this machine cannot run containers, and says why.
#
# Without --rootfs one is made by debootstrap (300 MB, a minute or more) in the cache directory, and
# used again the next time. The container's own changes are thrown away. It has no network; only
# debootstrap reaches out, to Debian's mirror. Also after a failure nothing is left but a complete root
# file system, if it came that far, or debootstrap's log.
set -euo pipefail

release=bookworm
# systemd and who has its interfaces; polkit, for whether somebody may; btrfs, to look at snapshots;
# kill, which reloads a service; the libraries of op-dbus; LXC, and what a container is made from.
packages=systemd,systemd-sysv,dbus,libpam-systemd,polkitd,btrfs-progs
packages+=,procps,libbtrfsutil1,libhwloc15,libnuma1,libstdc++6
packages+=,lxc,busybox-static
debootstrap_seconds_max=1200
guest_directory=/op-dbus-test

fail() {
    echo "container.sh: $*" >&2
    exit 1
}

cannot() {
    echo "$*" >&2
    exit 77
}

# Runs a command for so many seconds at most, in the background: only so is a signal to this script
# heeded before the command ends.
bounded() {
    local seconds=$1
    shift
    timeout --kill-after=15 "$seconds" "$@" </dev/null &
    child=$!
    local status=0
    wait "$child" || status=$?
    child=
    return "$status"
}

clean_up() {
    if [[ -n $child ]]; then
        kill "$child" 2>/dev/null || true
        wait "$child" || true
    fi
    for directory in "$work" "$partial_rootfs"; do
        if [[ -n $directory ]]; then rm -rf --one-file-system "$directory"; fi
    done
    if [[ ${#scope[@]} -gt 0 ]]; then remove_groups; fi
}

cache_directory() {
    if [[ ${XDG_CACHE_HOME:-} == /* ]]; then
        echo "$XDG_CACHE_HOME/op-dbus/test"
    else
        echo "$HOME/.cache/op-dbus/test"
    fi
}

# Where the root file system with these packages is, or will be.
cached_rootfs() {
    local sum
    sum=$(cksum <<<"$release $packages")
    echo "$(cache_directory)/rootfs-$release-${sum%% *}"
}

# Whoever comes second waits for the first.
make_rootfs() {
    local target=$1 lock
    [[ -n $(type -P debootstrap) ]] || cannot 'no debootstrap: apt-get install debootstrap'
    exec {lock}>"$target.lock"
    bounded "$debootstrap_seconds_max" flock "$lock" || fail "$target.lock is held by another run"
    if [[ ! -d $target ]]; then
        partial_rootfs=$target.partial
        rm -rf --one-file-system "$partial_rootfs"
        mkdir "$partial_rootfs"
        echo "making $target (once)"
        # Its mounts are its own, so that none is left behind.
        bounded "$debootstrap_seconds_max" unshare --mount debootstrap --variant=minbase \
            --force-check-gpg --include="$packages" "$release" "$partial_rootfs" \
            >"$target.log" 2>&1 || cannot "debootstrap failed: $(tail -n 3 "$target.log")"
        rm -rf "$partial_rootfs"/var/cache/apt/archives/*.deb "$partial_rootfs"/var/lib/apt/lists/*
        mv -T "$partial_rootfs" "$target"
        partial_rootfs=
        rm -f "$target.log"
    fi
    exec {lock}>&-
}

# What the container boots into: a service that ends the container, and hands on whether it failed.
write_unit() {
    cat <<EOF
[Unit]
Description=Runs a test
# Without logind a login is no session.
Requires=dbus.socket systemd-logind.service
After=dbus.socket systemd-logind.service
SuccessAction=exit-force
SuccessActionExitStatus=0
FailureAction=exit-force
FailureActionExitStatus=1

[Service]
Type=oneshot
WorkingDirectory=$guest_directory
ExecStart=/bin/bash $guest_directory/run.sh
TimeoutStartSec=$seconds
StandardOutput=append:$guest_directory/log
StandardError=append:$guest_directory/log
EOF
}

# A colon in a path would end it.
bind() {
    echo "--$1=${2//:/\\:}:${3//:/\\:}"
}

# Without a systemd on this machine there is nobody to ask for a scope: the control groups of a
# container are made in this process's own, where those of a second would be the same. So there is one
# container at a time.
take_turn() {
    local lock
    if [[ -d /run/systemd/system ]]; then return; fi
    # Open until the end of this script.
    exec {lock}>"$(cache_directory)/container.lock"
    bounded "$((seconds * 3))" flock "$lock" || fail 'other containers take too long'
    scope=(--keep-unit)
}

# What systemd-nspawn leaves of control groups that it made without a scope. None with a process goes.
remove_groups() {
    local controllers path root
    while IFS=: read -r _ controllers path; do
        case $controllers in
            name=systemd) root=/sys/fs/cgroup/systemd ;;
            '') root=/sys/fs/cgroup/unified && [[ -d $root ]] || root=/sys/fs/cgroup ;;
            *) continue ;;
        esac
        find "$root$path/payload" "$root$path/supervisor" -depth -type d -exec rmdir {} \; \
            2>/dev/null || true
    done </proc/self/cgroup
}

# Boots the root file system below a layer that is thrown away.
boot() {
    local rootfs=$1
    bounded "$seconds" systemd-nspawn --quiet --directory="$rootfs" --volatile=overlay \
        --machine="op-dbus-$$" --register=no "${scope[@]}" --private-network --link-journal=no \
        --settings=no "$(bind bind "$shared" "$guest_directory")" \
        "$(bind bind-ro "$work/unit" /etc/systemd/system/op-dbus-test.service)" "${binds[@]}" \
        --boot systemd.unit=op-dbus-test.service systemd.show_status=no >"$work/console" 2>&1
}

rootfs='' seconds=120 binds=()
while [[ ${1:-} == --* ]]; do
    case $1 in
        --rootfs) rootfs=${2:?} && shift ;;
        --seconds) seconds=${2:?} && shift ;;
        --bind | --bind-ro) binds+=("$(bind "${1#--}" "${2:?}" "${3:?}")") && shift 2 ;;
        *) set -- ;;
    esac
    shift || true
done
if [[ $# -ne 1 || ! -f $1/run.sh ]]; then
    sed -n '/^# Usage/,/^#$/ { /^#$/d; s/^# \{0,1\}//; p }' "$0" >&2
    exit 2
fi
shared=$(realpath "$1")
[[ $EUID -eq 0 ]] || cannot 'only root can boot a container: run this as root'
[[ -n $(type -P systemd-nspawn) ]] || cannot 'no systemd-nspawn: apt-get install systemd-container'

child='' work='' partial_rootfs='' scope=()
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$(cache_directory)"
if [[ -z $rootfs ]]; then
    rootfs=$(cached_rootfs)
    if [[ ! -d $rootfs ]]; then make_rootfs "$rootfs"; fi
fi
[[ -x $rootfs/usr/lib/systemd/systemd-hostnamed ]] || fail "$rootfs is no system with systemd"
take_turn
work=$(mktemp -d)
write_unit >"$work/unit"
status=0
boot "$rootfs" || status=$?
# Where run.sh has said nothing the container may not have come to it.
if [[ $status -ne 0 && ! -s $shared/log ]]; then tail -n 20 "$work/console" >&2; fi
if [[ $status -eq 124 || $status -eq 137 ]]; then fail "it took more than $seconds s"; fi
if [[ $status -gt 1 ]]; then fail "systemd-nspawn ended with $status"; fi
[[ $status -eq 0 ]]
