#!/bin/bash
# Makes a system what NixOS would make it. A part of system.sh and machine.sh, beside which there is a file,
# system, with the path of what was built: etc/, users and rules.

system=$(cat system)
# shellcheck disable=SC2154 # whoever has this names the unit
package=$(readlink -f "$system/etc/systemd/system/$unit")
package=${package%/lib/systemd/*}

# What NixOS does when it is switched to: links of /etc, users, directories, what is in the packages.
activate() {
    if ! "$package/bin/op-dbus" --version; then
        # Line and exit code are for system.rs.
        echo 'SKIPPED: the program was built with newer libraries than those of this release'
        exit
    fi
    cp -r --no-dereference "$system/etc/." /etc
    mkdir -p /run/current-system/sw/bin /usr/share/dbus-1/system.d /usr/share/dbus-1/system-services
    ln -s "$package/bin/op-dbus" /run/current-system/sw/bin/op-dbus
    ln -s -t /usr/share/dbus-1/system.d "$package"/share/dbus-1/system.d/*
    ln -s -t /usr/share/dbus-1/system-services "$package"/share/dbus-1/system-services/*
    mkdir -p /usr/share/polkit-1/actions /usr/share/polkit-1/rules.d
    ln -s -t /usr/share/polkit-1/actions "$package"/share/polkit-1/actions/*
    ln -s -t /usr/share/polkit-1/rules.d "$package"/share/polkit-1/rules.d/*
    systemd-sysusers "$system/sysusers.conf"
    systemd-tmpfiles --create "$system/tmpfiles.conf"
    printf 'u reader - "A member of the group"\nm reader op-dbus\nu stranger - "Anybody else"\n' |
        systemd-sysusers -
    busctl call org.freedesktop.DBus / org.freedesktop.DBus ReloadConfig >/dev/null
    systemctl daemon-reload
}

export PATH=/run/current-system/sw/bin:$PATH
