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
#   it container.sh, which boots it, makes one and keeps it.
# Runs as root, because containers need it. After a failure nothing is left but what container.sh keeps.
set -euo pipefail

fail() {
    echo "live_interfaces.sh: $*" >&2
    exit 1
}

clean_up() {
    if [[ -n $child ]]; then
        kill "$child" 2>/dev/null || true
        wait "$child" || true
    fi
    if [[ -n $work ]]; then rm -rf --one-file-system "$work"; fi
}

# What runs in there.
write_guest_script() {
    cat <<'EOF'
set -euo pipefail

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
job=$(first_word systemctl list-jobs --no-legend --plain op-dbus-test.service)
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

if [[ $# -lt 1 || $# -gt 2 || $1 == -* ]]; then
    sed -n '/^# Usage/,/^# Runs/ { /^# Runs/d; s/^# \{0,1\}//; p }' "$0" >&2
    exit 2
fi
out=$1
[[ ! -e $out && ! -L $out ]] || fail "$out exists"

child='' work=''
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$(dirname "$out")"
work=$(mktemp -d -p "$(realpath "$(dirname "$out")")")
write_guest_script >"$work/run.sh"
# In the background: only so is a signal to this script heeded before it ends.
"${0%/*}/container.sh" ${2:+--rootfs "$2"} "$work" &
child=$!
if ! wait "$child"; then
    child=
    tail -n 20 "$work/log" >&2 || true
    fail 'the container failed'
fi
child=
mv -T "$work/interfaces" "$out"
echo "$(find "$out" -name '*.xml' | wc -l) objects: $out"
