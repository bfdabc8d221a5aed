#!/bin/bash
# Makes a system what NixOS would make it with a configuration, nixos/tests/full.nix, starts the service and
# looks at what each option does. Runs as root in the container of container.sh; nixos/system.rs makes what
# it needs:
#   system     a file with the path of what was built: etc/, users and rules
#   holds.sh, activate.sh   parts of this
#   /var/lib/op-dbus   an empty btrfs; and the store of Nix where that path is
set -u
# Messages of others are compared.
export LC_ALL=C.UTF-8 SYSTEMD_PAGER='' SYSTEMD_COLORS=0

unit=operation-dbus.service
# shellcheck source=tests/system/holds.sh
source ./holds.sh

# shellcheck source=tests/nixos/activate.sh
source ./activate.sh

plugins=/etc/operation-dbus/plugins

# The variables of the process, a line each.
variables() { tr '\0' '\n' <"/proc/$process/environ"; }
status_of() { grep "^$1:" "/proc/$process/status"; }
setting() { op-dbus config show --origin; }
export process
export -f variables status_of setting

test_units() {
    local name
    for name in "$unit" operation-dbus-state.service op-dbus-snapshot.timer; do
        holds "enable: $name is wanted at the start" systemctl is-enabled "$name"
    done
    for name in "$unit" operation-dbus-state.service op-dbus-snapshot.service op-dbus-snapshot.timer; do
        holds "systemd-analyze verify says nothing of $name" says_only '' systemd-analyze verify "$name"
    done
    for name in lxc netmaker notice; do
        holds "plugins: systemd listens for $name" systemctl start "op-dbus-plugin@$name.socket"
        holds "systemd-analyze verify says nothing of the plugin $name" says_only '' \
            systemd-analyze verify "op-dbus-plugin@$name.service" "op-dbus-plugin@$name.socket"
    done
}

test_start() {
    holds 'it starts' systemctl start "$unit"
    process=$(property MainPID)
    holds 'package: its program is the one of the package' \
        [ "$(readlink "/proc/$process/exe")" = "$package/bin/op-dbus" ]
    holds 'user, group: whom it runs as' \
        [ "$(stat --format=%U:%G "/proc/$process")" = op-dbus:op-dbus ]
    holds 'it has no capability' says $'CapEff:\t0000000000000000' status_of CapEff
    holds 'its sandbox is that of every distribution' has ProtectSystem strict
    holds 'systemd finds it exposed no more than 1.0' \
        systemd-analyze security --threshold=10 "$unit"
}

test_environment() {
    holds 'logLevel is its variable' says OPDBUS_LOG_LEVEL=debug variables
    holds 'logLevel: the journal has what is only said in detail' \
        soon 10 says '"PRIORITY":"7"' journalctl --unit="$unit" --output=json
    holds 'extraEnvironment: a variable of ours' says OPDBUS_CACHE_MAX_SIZE_GB=0.5 variables
    holds 'extraEnvironment: another with spaces and a percent sign' \
        says 'GREETING=two words, 100 %h' variables
    holds 'extraEnvironment: memory is capped as it says' \
        says '"configured_bytes":500000000' op-dbus --bus system stats --json
    # Whether the kernel keeps to it is not asked here: not every container may limit memory.
    holds 'a unit is extended by MemoryMax' has MemoryMax 1073741824
    holds 'and by MemoryHigh' has MemoryHigh 943718400
}

test_numa() {
    holds 'numa.cpuList: it runs on these CPUs' says $'Cpus_allowed_list:\t0' status_of Cpus_allowed_list
    holds 'numa.cpuList: systemd says so' says 0 property CPUAffinity
    holds 'numa.enable: systemd binds its memory' has NUMAPolicy bind
    holds 'numa.node: to this node' has NUMAMask 0
    if [[ -e /proc/self/numa_maps ]]; then
        holds 'numa.node: what is to be hot is bound to it' \
            soon 10 grep -qw bind:0 "/proc/$process/numa_maps"
        holds 'numa.node: other memory prefers it' grep -q ' prefer:0 ' "/proc/$process/numa_maps"
    else
        echo 'left out: numa_maps, as this kernel knows no nodes'
    fi
    holds 'numa: the store has the same node' says 'node = 0  # /etc/operation-dbus/config.toml' setting
    holds 'numa: and the same CPUs' says 'cpu_list = 0  # /etc/operation-dbus/config.toml' setting
}

is_subvolume() { btrfs subvolume show "/var/lib/op-dbus/$1"; }

test_btrfs() {
    local name
    for name in @cache @vectors @state; do
        holds "btrfs.subvolumes: $name is one" is_subvolume "$name"
    done
    holds 'btrfs.subvolumes: what is not named is a directory' \
        refused_with 'Not a Btrfs subvolume' is_subvolume @timing
    holds 'btrfs.basePath: there is the store' test -f /var/lib/op-dbus/@state/STORE
    holds 'btrfs.compressionLevel: doctor holds the mount to it' \
        says 'where zstd:5 is wanted' as op-dbus bash -c 'op-dbus doctor; true'
}

test_model() {
    holds 'ml.executionProvider: what runs the model' \
        soon 30 says ML_PROVIDER=cpu journalctl --unit="$unit"
    # What the plugins say is indexed first.
    holds 'ml.enable: texts are searched for' \
        soon 30 op-dbus --bus system query 'set the name of this machine'
    holds 'ml.modelPath: the model is that of the package' \
        says "$package/share/op-dbus/models" op-dbus model list
    holds 'ml.numThreads' says 'num_threads = 2  # /etc/operation-dbus/config.toml' setting
    holds 'ml.gpuDeviceId' says 'gpu_device_id = 0  # /etc/operation-dbus/config.toml' setting
    holds 'settings: one without an option' \
        says 'calls_per_second = 500  # /etc/operation-dbus/config.toml' setting
}

count_lines() { grep -c "$1" <<<"$("${@:2}")"; }

test_plugins() {
    local name
    for name in lxc netmaker notice; do
        holds "plugins: $name is listed once" \
            [ "$(count_lines "^$name .*hand-written" op-dbus plugin list)" -eq 1 ]
        holds "plugins: $name.toml is one that can be read" test -r "$plugins/$name.toml"
    done
    holds 'plugins: one that is made of a D-Bus service is listed' \
        says auto-generated op-dbus plugin list
    holds 'plugins: there are no others' [ "$(op-dbus plugin list | wc -l)" -eq 4 ]
    for name in hostname lxc netmaker notice; do
        holds "plugins: the service has $name" says "/org/opdbus/plugins/$name" busctl tree org.opdbus
    done
    holds 'plugins: LXC is asked for its state' says containers op-dbus --bus system state query lxc
}

snapshots() { btrfs subvolume list -r /var/lib/op-dbus | grep -c 'path snapshots/.*/@state$'; }

test_snapshots() {
    local number
    holds 'the timer of snapshots runs' systemctl start op-dbus-snapshot.timer
    for number in 1 2 3; do
        holds "snapshot $number is taken" systemctl start op-dbus-snapshot.service
    done
    holds 'btrfs.snapshotRetention: 2 of 3 stay' [ "$(snapshots)" -eq 2 ]
}

test_state() {
    local file=/var/lib/op-dbus/state.json
    holds 'stateFile: it is there, the service'"'"'s' \
        [ "$(stat --format='%U:%G %a' "$file")" = 'op-dbus:op-dbus 640' ]
    holds 'defaultState: it begins with that' says '{"lxc":{"containers":{}}}' cat "$file"
    holds 'defaultState: it is made true' systemctl start operation-dbus-state.service
    holds 'defaultState: the store knows it' op-dbus --bus system state history
    holds 'defaultState: all is as declared' op-dbus --bus system state verify
    echo '{"version":"1.0","plugins":{}}' >"$file"
    systemd-tmpfiles --create "$system/tmpfiles.conf"
    holds 'stateFile: what is declared later survives' says '"plugins":{}' cat "$file"
    holds 'stateFile: a wrong one is refused' refused_with failed \
        bash -c "echo nonsense >$file && systemctl restart operation-dbus-state.service"
}

test_policies() {
    holds 'the group may read' as reader op-dbus --bus system collection list
    holds 'others may not' refused_with '' as stranger op-dbus --bus system collection list
    holds 'the service had nothing to warn of' says_only '-- No entries' \
        journalctl --unit="$unit" --priority=warning
}

activate
test_units
test_start
test_environment
test_numa
test_btrfs
test_model
test_plugins
test_snapshots
test_policies
test_state
sum_up
