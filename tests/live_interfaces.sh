#!/bin/bash
# Collects the D-Bus interfaces of systemd and of the bus itself from a system that runs.
# Why: systemd1, login1, hostname1, timedate1, locale1 and org.freedesktop.DBus are what an
# administrator asks for most, and no package has their introspection XML: it exists only on a live
# bus. So Debian's systemd is booted in a container, and asked. (cli/demo/collect_interfaces.py
# collects what packages have.)
# Usage: tests/live_interfaces.sh OUT_DIR [ROOTFS]
#   OUT_DIR must not exist; it appears when it is complete:
#     OUT_DIR/SERVICE/OBJECT.xml   such as systemd1/timer.xml
#   ROOTFS is a root file system with systemd, dbus and libpam-systemd, and stays as it is. Without
#   it one is made by debootstrap (280 MB, a few minutes) in $XDG_CACHE_HOME/op-dbus/test/rootfs and
#   used again the next time.
# Runs as root, because containers and debootstrap need it. The container has no network; only
# debootstrap reaches out, to Debian's mirror. After a failure nothing is left but a complete
# ROOTFS, if it came that far, or debootstrap's log.
set -euo pipefail

debootstrap_seconds_max=1200
container_seconds_max=120
guest_directory=/op-dbus-interfaces

fail() {
    echo "live_interfaces.sh: $*" >&2
    exit 1
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
}

cache_directory() {
    if [[ ${XDG_CACHE_HOME:-} == /* ]]; then
        echo "$XDG_CACHE_HOME/op-dbus/test"
    else
        echo "$HOME/.cache/op-dbus/test"
    fi
}

# Debian 12 with what the interfaces come from. Whoever comes second waits for the first.
make_rootfs() {
    local target=$1 lock
    [[ -n $(type -P debootstrap) ]] || fail 'no debootstrap: apt-get install debootstrap'
    mkdir -p "${target%/*}"
    exec {lock}>"$target.lock"
    bounded "$debootstrap_seconds_max" flock "$lock" || fail "$target.lock is held by another run"
    if [[ ! -d $target ]]; then
        partial_rootfs=$target.partial
        rm -rf --one-file-system "$partial_rootfs"
        mkdir "$partial_rootfs"
        echo "making $target (once)"
        # Its mounts are its own, so that none is left behind.
        bounded "$debootstrap_seconds_max" unshare --mount debootstrap --variant=minbase \
            --force-check-gpg --include=systemd,systemd-sysv,dbus,libpam-systemd \
            bookworm "$partial_rootfs" >"$target.log" 2>&1 ||
            fail "debootstrap failed: $(tail -n 3 "$target.log")"
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
Description=Writes the introspection of what is on the bus
# Without logind a login is no session.
Requires=dbus.socket systemd-logind.service
After=dbus.socket systemd-logind.service
SuccessAction=exit-force
SuccessActionExitStatus=0
FailureAction=exit-force
FailureActionExitStatus=1

[Service]
Type=oneshot
ExecStart=/bin/bash $guest_directory/collect.sh
TimeoutStartSec=$container_seconds_max
StandardOutput=append:$guest_directory/log
StandardError=append:$guest_directory/log
EOF
}

# What runs in there.
write_guest_script() {
    cat <<'EOF'
set -euo pipefail
cd "${0%/*}"

# Writes one object's interfaces; the one that it is asked for must be among them.
collect() {
    local file=$1.xml service=$2 path=$3 interface=$4
    mkdir -p "interfaces/${file%/*}"
    busctl --system --timeout=20 introspect --xml-interface "$service" "$path" >"interfaces/$file"
    if ! grep -qF "<interface name=\"$interface\"" "interfaces/$file"; then
        echo "$path of $service has no interface $interface"
        exit 1
    fi
}

# A unit need not exist to be described: systemd knows it by its name, and its type.
unit() {
    local type=$1 escaped=$2
    collect "systemd1/$type" org.freedesktop.systemd1 \
        "/org/freedesktop/systemd1/unit/$escaped" "org.freedesktop.systemd1.${type^}"
}

# Waits until a command prints something, and prints its first word.
first_word() {
    local word
    for _ in {1..100}; do
        word=$("$@" | awk 'NR == 1 { print $1 }')
        if [[ -n $word ]]; then
            echo "$word"
            return
        fi
        sleep 0.1
    done
    echo "nothing from: $*" >&2
    return 1
}

unit service dbus_2eservice
unit socket dbus_2esocket
unit target multi_2duser_2etarget
unit timer systemd_2dtmpfiles_2dclean_2etimer
unit path systemd_2dask_2dpassword_2dwall_2epath
unit mount _2d_2emount
unit automount proc_2dsys_2dfs_2dbinfmt_5fmisc_2eautomount
unit swap dev_2dvda2_2eswap
unit device dev_2dvda_2edevice
unit slice system_2eslice
unit scope init_2escope
collect systemd1/manager org.freedesktop.systemd1 /org/freedesktop/systemd1 \
    org.freedesktop.systemd1.Manager
# The start of this script is a job.
job=$(first_word systemctl list-jobs --no-legend --plain op-dbus-collect.service)
collect systemd1/job org.freedesktop.systemd1 "/org/freedesktop/systemd1/job/$job" \
    org.freedesktop.systemd1.Job

# Somebody who has logged in. Without User= there is no PAM for root.
systemd-run --quiet --property=User=root --property=PAMName=login sleep infinity
session=$(first_word loginctl list-sessions --no-legend)
session_path=$(busctl --system --timeout=20 call org.freedesktop.login1 /org/freedesktop/login1 \
    org.freedesktop.login1.Manager GetSession s "$session" | cut -d '"' -f 2)
for object in /org/freedesktop/login1=Manager "$session_path"=Session \
    /org/freedesktop/login1/user/_0=User /org/freedesktop/login1/seat/seat0=Seat; do
    kind=${object#*=}
    collect "login1/${kind,,}" org.freedesktop.login1 "${object%=*}" "org.freedesktop.login1.$kind"
done

for name in hostname1 timedate1 locale1; do
    collect "$name/$name" "org.freedesktop.$name" "/org/freedesktop/$name" "org.freedesktop.$name"
done
collect DBus/bus org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus
EOF
}

# Boots the root file system below a layer that is thrown away. `$work` is what it shares with here.
boot() {
    local rootfs=$1 scope=()
    # Without a systemd on this machine there is nobody to ask for a scope.
    if [[ ! -d /run/systemd/system ]]; then scope=(--keep-unit); fi
    # A colon in a path would end it.
    bounded "$container_seconds_max" systemd-nspawn --quiet --directory="$rootfs" \
        --volatile=overlay --machine="op-dbus-$$" --register=no "${scope[@]}" --private-network \
        --link-journal=no --settings=no --bind="${work//:/\\:}:$guest_directory" \
        --bind-ro="${work//:/\\:}/unit:/etc/systemd/system/op-dbus-collect.service" \
        --boot systemd.unit=op-dbus-collect.service systemd.show_status=no >"$work/console" 2>&1
}

if [[ $# -lt 1 || $# -gt 2 || $1 == -* ]]; then
    sed -n '/^# Usage/,/^# Runs/ { /^# Runs/d; s/^# \{0,1\}//; p }' "$0" >&2
    exit 2
fi
[[ $EUID -eq 0 ]] || fail 'only root can boot a container: run this as root'
[[ -n $(type -P systemd-nspawn) ]] || fail 'no systemd-nspawn: apt-get install systemd-container'
out=$1
[[ ! -e $out && ! -L $out ]] || fail "$out exists"

child='' work='' partial_rootfs=''
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [[ $# -eq 2 ]]; then
    rootfs=$2
else
    rootfs=$(cache_directory)/rootfs
    if [[ ! -d $rootfs ]]; then make_rootfs "$rootfs"; fi
fi
[[ -x $rootfs/usr/lib/systemd/systemd-hostnamed ]] || fail "$rootfs is no system with systemd"

mkdir -p "$(dirname "$out")"
work=$(mktemp -d -p "$(realpath "$(dirname "$out")")")
write_unit >"$work/unit"
write_guest_script >"$work/collect.sh"
if ! boot "$rootfs"; then
    tail -n 20 "$work/console" "$work/log" >&2 || true
    fail "the container failed, or took more than $container_seconds_max s"
fi
mv -T "$work/interfaces" "$out"
echo "$(find "$out" -name '*.xml' | wc -l) objects: $out"
