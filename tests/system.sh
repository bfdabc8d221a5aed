#!/bin/bash
# Installs the service as a package would, and asks it, its units and its policies everything that only a
# whole system can answer. Runs as root in the container of container.sh; system.rs makes what it needs:
#   op-dbus    the program
#   system/    the files of daemon/system
#   plugins/   those of daemon/plugins, and op-dbus-plugin-* their executables
#   plugins.sh, holds.sh   parts of this
#   /usr/lib/op-dbus, /usr/share/op-dbus/models, /var/lib/op-dbus
#              ONNX Runtime, the model, and an empty btrfs
# Each thing that must hold prints a line that begins with "ok" or "FAILED"; the last line counts them.
set -u
# Messages of others are compared.
export LC_ALL=C.UTF-8 SYSTEMD_PAGER='' SYSTEMD_COLORS=0

# shellcheck source=tests/system/holds.sh
source ./holds.sh
# shellcheck source=tests/system/plugins.sh
source ./plugins.sh

unit=operation-dbus.service
exposure_max=1.0

# Calls a method of the service, as people do: INTERFACE MEMBER [SIGNATURE ARGUMENT...].
ask() {
    busctl --timeout=20 call org.opdbus /org/opdbus "org.opdbus.$1" "${@:2}"
}

# The same, so that the name of an error is told: INTERFACE MEMBER [TYPE:ARGUMENT...].
ask_by_name() {
    dbus-send --system --print-reply --reply-timeout=20000 --dest=org.opdbus /org/opdbus \
        "org.opdbus.$1.$2" "${@:3}"
}

export -f ask ask_by_name

install_files() {
    if ! ./op-dbus --version; then
        # Line and exit code are for system.rs.
        echo 'SKIPPED: the program was built with newer libraries than those of this release'
        exit
    fi
    install -m 755 op-dbus /usr/bin/op-dbus
    cd system || exit 1
    install -m 644 operation-dbus.service op-dbus-snapshot.service op-dbus-snapshot.timer \
        op-dbus-plugin@.service op-dbus-plugin@.socket /usr/lib/systemd/system/
    install -m 755 -D -t /usr/lib/systemd/system-generators op-dbus-plugin-generator
    install -m 644 -D org.opdbus.conf /usr/share/dbus-1/system.d/org.opdbus.conf
    install -m 644 -D org.opdbus.service /usr/share/dbus-1/system-services/org.opdbus.service
    install -m 644 -D org.opdbus.policy /usr/share/polkit-1/actions/org.opdbus.policy
    install -m 644 -D op-dbus.rules /usr/share/polkit-1/rules.d/60-op-dbus.rules
    install -m 644 -D op-dbus.sysusers /usr/lib/sysusers.d/op-dbus.conf
    install -m 644 -D op-dbus.tmpfiles /usr/lib/tmpfiles.d/op-dbus.conf
    cd ..
}

test_users() {
    holds 'sysusers makes the users' says_only 'Creating ' systemd-sysusers op-dbus.conf
    holds 'the user op-dbus lives in the store and cannot log in' \
        grep -q '^op-dbus:.*:/var/lib/op-dbus:/usr/sbin/nologin$' /etc/passwd
    holds 'the user op-dbus-plugin lives nowhere' \
        grep -q '^op-dbus-plugin:.*:/:/usr/sbin/nologin$' /etc/passwd
    holds 'tmpfiles has nothing to complain about' says_only '' systemd-tmpfiles --create op-dbus.conf
    holds 'tmpfiles makes the directory of plugins' test -d /etc/operation-dbus/plugins
    # People: a member of the group, and one who is nobody in particular.
    printf 'u reader - "A member of the group"\nm reader op-dbus\nu stranger - "Anybody else"\n' |
        systemd-sysusers -
    busctl call org.freedesktop.DBus / org.freedesktop.DBus ReloadConfig >/dev/null
    systemctl daemon-reload
}

exposure() {
    systemd-analyze security --no-pager "$1" | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p'
}

test_units() {
    local name level
    for name in operation-dbus.service op-dbus-snapshot.service op-dbus-snapshot.timer; do
        # It succeeds whatever it complains about.
        holds "systemd-analyze verify says nothing of $name" says_only "" systemd-analyze verify "$name"
    done
    for name in operation-dbus.service op-dbus-snapshot.service; do
        level=$(exposure "$name")
        holds "exposure of $name: $level, at most $exposure_max" \
            awk -v level="$level" -v max="$exposure_max" 'BEGIN { exit !(level != "" && level <= max) }'
    done
}

test_start() {
    holds 'the service starts' systemctl enable --quiet --now "$unit"
    holds 'it is active' is_running
    holds 'it is of the type notify' has Type notify
    holds 'it says what it does' says answering property StatusText
    holds 'it has a watchdog' has WatchdogUSec 30s
    holds 'it runs as op-dbus' says op-dbus ps -o user= -p "$(property MainPID)"
    holds 'it has no capability' says 0000000000000000 \
        grep CapBnd "/proc/$(property MainPID)/status"
    holds 'its directory is for it and its group' \
        says 'op-dbus op-dbus 750' stat --format='%U %G %a' /var/lib/op-dbus
}

test_reading() {
    local many
    systemctl stop "$unit"
    holds 'without the service its user fills the store' \
        as op-dbus op-dbus put network --text 'restarts the network'
    systemctl start "$unit"
    holds 'the model runs, sandboxed as it is' says 'uv 384 ay ' ask Cache1 Embed as 1 network
    # Over 64 KiB, vectors come in a sealed memory file.
    mapfile -t many < <(seq -f 'text %g' 60)
    holds 'many vectors come in a memory file' says 'uv 384 h ' ask Cache1 Embed as 60 "${many[@]}"
    holds 'root may search' says network ask Query1 Search 'sa{sv}' 'restart the network' 0
    holds 'a member of the group may search' says network \
        as reader ask Query1 Search 'sa{sv}' 'restart the network' 0
    holds 'nobody else may search' refused_with 'Access denied' \
        as nobody ask Query1 Search 'sa{sv}' 'restart the network' 0
    holds 'it is the bus who refuses' refused_with org.freedesktop.DBus.Error.AccessDenied \
        as nobody ask_by_name State1 Get string:greeting
    holds 'a user without the group may not read' refused_with \
        org.freedesktop.DBus.Error.AccessDenied as stranger ask_by_name State1 Get string:greeting
    holds 'nobody else may have the name' refused_with org.freedesktop.DBus.Error.AccessDenied \
        as reader dbus-send --system --print-reply --dest=org.freedesktop.DBus / \
        org.freedesktop.DBus.RequestName string:org.opdbus uint32:0
}

test_changing() {
    holds 'root may put' ask State1 Put ss greeting '{"text":"hello"}'
    holds 'what was put is there' says hello ask State1 Get s greeting
    holds 'a member of the group may not put' refused_with org.opdbus.Error.Denied \
        as reader ask_by_name State1 Put string:greeting string:'{"text":"bye"}'
    holds 'what was refused did not happen' says hello ask State1 Get s greeting
    holds 'without polkit nobody may put' without_polkit refused_with org.opdbus.Error.Denied \
        ask_by_name State1 Put string:greeting string:'{"text":"bye"}'
    holds 'with polkit root may again' ask State1 Put ss farewell '{"text":"bye"}'
    holds 'the service user may not put: its rule is about snapshots' \
        refused_with org.opdbus.Error.Denied \
        as op-dbus ask_by_name State1 Put string:greeting string:'{"text":"bye"}'
}

without_polkit() {
    local status=0
    systemctl mask --quiet --runtime --now polkit.service
    "$@" || status=$?
    systemctl unmask --quiet --runtime polkit.service
    return "$status"
}

test_kill() {
    local process
    process=$(property MainPID)
    kill -9 "$process"
    holds 'killed, it comes back' soon 15 is_another_process "$process"
    holds 'systemd has started it anew once' has NRestarts 1
    holds 'what was put before is there' says hello ask State1 Get s greeting
    holds 'and can be replaced' ask State1 Put ss greeting '{"text":"hello again"}'
}

test_reload() {
    local process
    process=$(property MainPID)
    holds 'it reloads' systemctl reload "$unit"
    holds 'it is active again' soon 5 is_running
    holds 'its process is the same' has MainPID "$process"
    holds 'it still says what it does' says answering property StatusText
    holds 'it still answers' says 'hello again' ask State1 Get s greeting
}

test_stop() {
    local started=$SECONDS
    holds 'it stops' systemctl stop "$unit"
    holds "it stops in $((SECONDS - started)) s, at most 5" [ $((SECONDS - started)) -le 5 ]
    holds 'it ends well' has Result success
    holds 'its exit code is 0' has ExecMainStatus 0
    holds 'without it the user op-dbus reads the store' \
        says 'hello again' as op-dbus op-dbus get greeting
    holds 'and root does not' refused_with 'belongs to' op-dbus get greeting
    holds 'a snapshot is left out while it is stopped' systemctl start op-dbus-snapshot.service
    holds 'the timer has not started it' has ActiveState inactive
}

test_activation() {
    holds 'whoever asks starts it' says 'hello again' ask State1 Get s greeting
    # It answers a moment before systemd hears that it does.
    holds 'it is active again' soon 5 is_running
}

snapshots() { btrfs subvolume list -r /var/lib/op-dbus | grep -c 'path snapshots/.*/@state$'; }

test_snapshots() {
    holds 'the timer is enabled' systemctl enable --quiet --now op-dbus-snapshot.timer
    holds 'the timer says when it is next' \
        says ' UTC' property NextElapseUSecRealtime op-dbus-snapshot.timer
    holds 'there is no snapshot' [ "$(snapshots)" -eq 0 ]
    holds 'the unit of the timer runs' systemctl start op-dbus-snapshot.service
    holds 'BTRFS has a snapshot' [ "$(snapshots)" -eq 1 ]
    holds 'its reason is the timer' says timer op-dbus --bus system snapshot list
    holds 'root sees what it takes' says timer op-dbus snapshot list
    holds 'a member of the group may not take one' refused_with 'org.opdbus.snapshot' \
        as reader op-dbus --bus system snapshot create
    holds 'root takes another, of which one stays' says ',' \
        op-dbus --bus system snapshot create --reason hand --retention 1 --json
    holds 'one has stayed' [ "$(snapshots)" -eq 1 ]
    holds 'it is the one of root' says hand op-dbus --bus system snapshot list
    # Without --bus, and the store in use.
    holds 'root deletes it, by the service' op-dbus snapshot delete "$(last_snapshot)"
    holds 'none has stayed' [ "$(snapshots)" -eq 0 ]
}

last_snapshot() { op-dbus --bus system snapshot list | awk 'END { print $1 }'; }

# What only shows with other settings than those of the unit.
configure() {
    mkdir -p "/run/systemd/system/$unit.d"
    printf '[Service]\n%s\n' "$@" >"/run/systemd/system/$unit.d/test.conf"
    systemctl daemon-reload
    systemctl restart "$unit"
}

test_numa() {
    local maps
    if [[ ! -e /proc/self/numa_maps ]]; then
        echo 'left out: NUMA, as this kernel knows no nodes'
        return
    fi
    configure Environment=OPDBUS_NUMA_POLICY=bind Environment=OPDBUS_NUMA_NODE=0
    maps=/proc/$(property MainPID)/numa_maps
    ask Query1 Search 'sa{sv}' 'restart the network' 0 >/dev/null
    holds 'its memory is bound to a node, sandboxed as it is' soon 5 grep -q ' bind:0 ' "$maps"
}

test_watchdog() {
    local process
    configure WatchdogSec=2s
    process=$(property MainPID)
    holds 'with a short watchdog it goes on' bash -c 'sleep 3'
    holds 'its process is the same as before' has MainPID "$process"
    kill -STOP "$process"
    holds 'stopped dead, it is ended and comes back' soon 20 is_another_process "$process"
    holds 'the watchdog has ended it' says 'Watchdog timeout' journalctl --unit="$unit" --boot
    holds 'what was put is there' says 'hello again' ask State1 Get s greeting
}

test_settings() {
    holds 'with a wrong setting it does not start' refused_with failed \
        configure Environment=OPDBUS_CACHE_POLICY=nonsense
    holds 'it is not tried again' has NRestarts 0
    holds 'the journal says which one is wrong' says cache-policy \
        journalctl --unit="$unit" --boot
    rm -r "/run/systemd/system/$unit.d"
    systemctl daemon-reload
    systemctl reset-failed "$unit"
    holds 'without it it starts' systemctl start "$unit"
}

test_journal() {
    journalctl --sync
    holds 'the journal tells what runs the model' says ML_PROVIDER=cpu journalctl --unit="$unit"
    holds 'what is logged has fields that can be looked for' says answering \
        journalctl --unit="$unit" BUS=system
    holds 'the model is such a field' says '"MODEL"' \
        journalctl --unit="$unit" --output=json --output-fields=MODEL
    holds 'ONNX Runtime tells nobody of its use, and notes nothing' \
        refused_with 'No such file' stat /var/lib/op-dbus/.cache
    holds 'the service had nothing to warn of' says_only '-- No entries' \
        journalctl _COMM=op-dbus --priority=warning
}

# Last, as it leaves errors in the journal.
test_errors() {
    holds 'without a bus it does not start' refused_with failed \
        configure Environment=OPDBUS_BUS=unix:path=/nowhere
    journalctl --sync
    holds 'the journal has it as an error, and what to do' says 'REMEDY=start the bus' \
        journalctl _COMM=op-dbus --priority=err --output=export
    holds 'as one that may pass it is tried again' soon 5 has NRestarts 2
    systemctl stop "$unit"
}

# A hand-written plugin whose state is who runs it, and whether it can write where it should not.
make_plugin() {
    local directory=/etc/operation-dbus/plugins/who
    mkdir -p "$directory"
    cat >"$directory/plugin.toml" <<'EOF'
[plugin]
name = "who"
version = "1"
source = "hand-written"
[sandbox]
user = "op-dbus-plugin"
EOF
    cat >"$directory/plugin" <<'EOF'
#!/bin/bash
read -r greeting
echo '{"protocol":1,"plugin":"who","version":"1"}'
while read -r request; do
    id=$(sed 's/.*"id":\([0-9]*\).*/\1/' <<<"$request")
    if touch /var/lib/op-dbus/stolen 2>/dev/null; then steals=true; else steals=false; fi
    echo "{\"id\":$id,\"state\":{\"user\":\"$(id -un)\",\"steals\":$steals}}"
done
EOF
    chmod 755 "$directory/plugin"
}

test_plugins() {
    make_plugin
    # The generator runs, and says as whom the plugin does.
    systemctl daemon-reload
    holds 'systemd knows as whom a plugin runs' says 'User=op-dbus-plugin' \
        systemctl show --property=User op-dbus-plugin@who.service
    systemctl start op-dbus-plugin@who.socket
    systemctl restart "$unit"
    holds 'a plugin is asked for its state' says '"user": "op-dbus-plugin"' \
        op-dbus --bus system state query who
    holds 'it cannot write where the service does' says '"steals": false' \
        op-dbus --bus system state query who
    holds 'nobody else may ask it' says 'op-dbus 600' \
        stat --format='%U %a' /run/op-dbus-plugins/who.sock
    holds 'systemd-analyze verify says nothing of plugins' says_only '' \
        systemd-analyze verify op-dbus-plugin@who.service op-dbus-plugin@who.socket
}

test_all() {
    install_files
    test_users
    test_units
    test_start
    test_reading
    test_changing
    test_kill
    test_reload
    test_snapshots
    test_stop
    test_activation
    test_numa
    test_watchdog
    test_settings
    test_plugins
    test_journal
    test_shipped_plugins
    test_errors
}

test_all
sum_up
