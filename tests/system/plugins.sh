#!/bin/bash
# The shipped plugins, each run by systemd as its plugin.toml declares, and asked by the service for
# root: Netmaker's with a stand-in for netclient, that of LXC with LXC itself. A part of system.sh.

state() { op-dbus --bus system state "$@"; }

# Succeeds if a command ends with a code, and says a text.
ends_with() {
    local code=$1 text=$2 output status=0
    shift 2
    output=$("$@" 2>&1) || status=$?
    echo "$status: $output"
    [[ $status -eq $code && $output == *"$text"* ]]
}

# Succeeds if a command says nothing like a text.
conceals() {
    local text=$1 output
    shift
    output=$("$@" 2>&1) || { echo "$output" && return 1; }
    if grep --fixed-strings "$text" <<<"$output"; then return 1; fi
}

# Declares the state of a plugin: PLUGIN JSON. Its file is the plugin's name.
declare_state() {
    printf '{"version": "1.0", "plugins": {"%s": %s}}\n' "$1" "$2" >"$1.json"
}

# Asks a plugin's executable itself to make true what its file declares.
apply_alone() {
    local name=$1 directory=/etc/operation-dbus/plugins/$1 desired
    desired=$(sed "s/.*\"plugins\": {\"$name\": \(.*\)}}$/\1/" "$name.json")
    printf '%s\n' "{\"protocol\":1,\"plugin\":\"$name\",\"config\":{}}" \
        "{\"id\":1,\"verb\":\"apply\",\"desired\":$desired}" | "$directory/op-dbus-plugin-$name"
}

export -f state apply_alone

install_plugin() {
    local name=$1 directory=/etc/operation-dbus/plugins/$1
    install -m 644 -D -t "$directory" "plugins/$name/plugin.toml"
    install -m 755 -t "$directory" "op-dbus-plugin-$name"
    systemctl daemon-reload
    systemctl start "op-dbus-plugin@$name.socket"
    systemctl restart "$unit"
    holds "systemd-analyze verify says nothing of the plugin $name" says_only '' \
        systemd-analyze verify "op-dbus-plugin@$name.service" "op-dbus-plugin@$name.socket"
}

install_netclient() {
    mkdir -p /etc/netclient
    {
        printf '#!/bin/sh\nset -eu\nstate=/etc/netclient\n'
        cat plugins/tests/netclient.sh
    } >/usr/bin/netclient
    chmod 755 /usr/bin/netclient
}

test_netmaker() {
    local secret=eyJzZWNyZXQiOiJodW50ZXIy
    install_netclient
    install_plugin netmaker
    declare_state netmaker "{\"networks\": {\"office\": {\"present\": true, \"connected\": false,
        \"token\": \"$secret.office\"}}}"
    # One line, as the plugin reads it.
    tr -d '\n' <netmaker.json >one-line && mv one-line netmaker.json
    holds 'netmaker has no network' ends_with 0 '"networks": {}' state query netmaker
    holds 'netmaker: a difference is told' \
        ends_with 0 'networks.office.present: false -> true' state diff netmaker.json
    holds 'netmaker: a dry run tells it, too' \
        ends_with 0 'networks.office.connected: true -> false' state apply --dry-run netmaker.json
    holds 'netmaker: it is not as declared' ends_with 13 'to be changed' state verify netmaker.json
    holds 'netmaker: none of them has joined' refused_with 'No such file' cat /etc/netclient/net-office
    holds 'netmaker: the user of the service cannot join by the plugin alone' \
        says '"error":{' as op-dbus apply_alone netmaker
    holds 'netmaker: nor by the service' \
        refused_with 'org.opdbus' as op-dbus state apply netmaker.json
    holds 'netmaker: it has not joined' refused_with 'No such file' cat /etc/netclient/net-office
    holds 'netmaker: what is declared is made so' ends_with 0 changed state apply netmaker.json
    holds 'netmaker: it has joined and disconnected' ends_with 0 false cat /etc/netclient/net-office
    holds 'netmaker: it is as declared' ends_with 0 'as declared' state verify netmaker.json
    holds 'netmaker: its state is told' ends_with 0 '"connected": false' state query netmaker
    holds 'netmaker: the token has reached netclient' ends_with 0 "$secret" cat /etc/netclient/log
    holds 'netmaker: and is in no journal' conceals "$secret" op-dbus --bus system journal export
    holds 'netmaker: nor in that of the system' conceals "$secret" journalctl --boot
    test_netmaker_fails
}

test_netmaker_fails() {
    echo 'the server says no' >/etc/netclient/fail-connect-office
    declare_state netmaker '{"networks": {"office": {"connected": true}}}'
    holds 'netmaker: what fails is told, and taken back' \
        ends_with 13 'the server says no' state apply netmaker.json
    holds 'netmaker: it is as it was' ends_with 0 false cat /etc/netclient/net-office
    declare_state netmaker '{"networks": {"office": {"present": false}}}'
    holds 'netmaker: it leaves' ends_with 0 'true -> false' state apply netmaker.json
    holds 'netmaker: it has left' ends_with 0 '"networks": {}' state query netmaker
}

is_in_container() { ends_with 0 "$1" lxc-attach --name="$box" -- "${@:2}"; }
# What the kernel says of the first program of the container.
of_init() { grep "^$1:" "/proc/$(lxc-info --name="$box" --pid --no-humanize)/status"; }

test_lxc() {
    local box=op-dbus-box network
    if [[ -z $(type -P lxc-create) || -z $(type -P busybox) ]]; then
        echo 'left out: LXC, as it is not in this root file system'
        return
    fi
    install_plugin lxc
    holds 'lxc has no container' ends_with 0 '"containers": {}' state query lxc
    # Without a bridge a container has no network; without AppArmor no profile.
    network='"lxc.net.0.type": "empty", "lxc.net.0.link": null, "lxc.net.0.flags": null'
    declare_state lxc "{\"containers\": {\"$box\": {\"present\": true, \"template\": \"busybox\", \"autostart\": true, \"config\": {$network, \"lxc.apparmor.profile\": \"unconfined\", \"lxc.apparmor.allow_nesting\": null}}}}"
    holds 'lxc: a difference is told' \
        ends_with 0 "containers.$box.present: false -> true" state diff lxc.json
    holds 'lxc: a dry run tells it, too' \
        ends_with 0 "containers.$box.autostart: false -> true" state apply --dry-run lxc.json
    holds 'lxc: it is not as declared' ends_with 13 'to be changed' state verify lxc.json
    holds 'lxc: none of them has made it' [ ! -e "/var/lib/lxc/$box" ]
    holds 'lxc: the user of the service cannot make it by the plugin alone' \
        says '"error":{' as op-dbus apply_alone lxc
    holds 'lxc: nor by the service' refused_with 'org.opdbus' as op-dbus state apply lxc.json
    holds 'lxc: it is not there' [ ! -e "/var/lib/lxc/$box" ]
    # The first start after a boot: nothing of LXC has run yet.
    holds 'lxc: what is declared is made so' ends_with 0 changed state apply lxc.json
    holds 'lxc: it is as declared' ends_with 0 'as declared' state verify lxc.json
    holds 'lxc: LXC lists it' ends_with 0 "$box STOPPED 1" \
        bash -c 'lxc-ls --fancy --fancy-format=NAME,STATE,AUTOSTART | tr -s " "'
    holds 'lxc: its configuration has what was declared' \
        grep -qx 'lxc.net.0.type = empty' "/var/lib/lxc/$box/config"
    holds 'lxc: and not what was taken out' refused_with '' grep lxc.net.0.link "/var/lib/lxc/$box/config"
    holds 'lxc: what runs as another user does so in it' \
        says /bin/ find "/var/lib/lxc/$box/rootfs" -perm /4000
    test_lxc_running
    declare_state lxc "{\"containers\": {\"$box\": {\"present\": false}}}"
    holds 'lxc: it goes' ends_with 0 'true -> false' state apply lxc.json
    holds 'lxc: it has gone' ends_with 0 '"containers": {}' state query lxc
    holds 'lxc: with all that it held' [ ! -e "/var/lib/lxc/$box" ]
}

test_lxc_running() {
    if ! lxc-start --name="$box" || ! lxc-stop --kill --name="$box"; then
        echo 'left out: running containers, as LXC itself cannot start one here'
        return
    fi
    declare_state lxc "{\"containers\": {\"$box\": {\"running\": true}}}"
    holds 'lxc: it is started' ends_with 0 'false -> true' state apply lxc.json
    holds 'lxc: it runs' ends_with 0 RUNNING lxc-info --name="$box" --state --no-humanize
    holds 'lxc: that is as declared' ends_with 0 'as declared' state verify
    holds 'lxc: its state is told' ends_with 0 '"running": true' state query lxc
    holds 'lxc: it has its own name' is_in_container "$box" hostname
    holds 'lxc: programs in it may become other users' ends_with 0 0 of_init NoNewPrivs
    holds 'lxc: it has no capability that the plugin lacks' ends_with 0 00000000a86c35fb of_init CapBnd
    holds 'lxc: nor any to hand on' ends_with 0 0000000000000000 of_init CapInh
    holds 'lxc: it begins with the umask of LXC' ends_with 0 0022 of_init Umask
    systemctl stop op-dbus-plugin@lxc.service
    holds 'lxc: it outlives the plugin' is_in_container "$box" hostname
    declare_state lxc "{\"containers\": {\"$box\": {\"running\": false, \"autostart\": false}, \"bad\": {\"present\": true, \"template\": \"no-such\"}}}"
    holds 'lxc: what fails is told, and taken back' ends_with 13 'taken back' state apply lxc.json
    holds 'lxc: it runs again' ends_with 0 RUNNING lxc-info --name="$box" --state --no-humanize
    holds 'lxc: it starts with the system still' \
        grep -qx 'lxc.start.auto = 1' "/var/lib/lxc/$box/config"
}

test_shipped_plugins() {
    test_netmaker
    test_lxc
}
