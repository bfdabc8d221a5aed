# Puts a system's files together in $out, each where that system looks for it. Why: the files of
# daemon/system name programs below /usr and /bin, and the users of the service, which are others here.
# Read by the builder of package.nix, with these variables:
#   programDirectory, modelDirectory, runtimeDirectory   where op-dbus, the model and ONNX Runtime are
#   systemFiles                                          daemon/system
#   serviceUser, serviceGroup                            whom the service runs as
#   shProgram, killProgram, systemctlProgram, falseProgram   what the files name
set -eu

install_programs() {
    # Copied, not linked: op-dbus looks for the library and the model beside itself.
    install -D -m 755 -t "$out/bin" "$programDirectory/bin/op-dbus"
    mkdir -p "$out/lib/op-dbus" "$out/share/op-dbus/models"
    # With those for a card, which the first looks for beside itself.
    ln -s -t "$out/lib/op-dbus" "$runtimeDirectory"/libonnxruntime*.so*
    ln -s "$modelDirectory" "$out/share/op-dbus/models/all-MiniLM-L6-v2"
}

# Copies a file and replaces what stands in it: FROM TO [TEXT BY]... Each text must be there, or the file
# has changed and this has not.
adapt() {
    local from=$systemFiles/$1 to=$out/$2 text
    shift 2
    # Without the point the line end would be lost.
    text=$(cat "$from" && echo .)
    while [ $# -gt 0 ]; do
        if [[ $text != *"$1"* ]]; then
            echo "$from has no $1 any more" >&2
            exit 1
        fi
        text=${text//"$1"/"$2"}
        shift 2
    done
    mkdir -p "$(dirname "$to")"
    printf %s "${text%.}" >"$to"
}

install_units() {
    local units=lib/systemd/system own=/usr/bin/op-dbus
    adapt operation-dbus.service $units/operation-dbus.service "$own" "$out/bin/op-dbus" \
        /bin/kill "$killProgram" $'\nUser=op-dbus\n' $'\nUser='"$serviceUser"$'\n' \
        $'\nGroup=op-dbus\n' $'\nGroup='"$serviceGroup"$'\n'
    adapt op-dbus-snapshot.service $units/op-dbus-snapshot.service "$own" "$out/bin/op-dbus" \
        /bin/systemctl "$systemctlProgram" $'\nUser=op-dbus\n' $'\nUser='"$serviceUser"$'\n' \
        $'\nGroup=op-dbus\n' $'\nGroup='"$serviceGroup"$'\n'
    adapt op-dbus-snapshot.timer $units/op-dbus-snapshot.timer
    adapt op-dbus-plugin@.service "$units/op-dbus-plugin@.service" "$own" "$out/bin/op-dbus"
    adapt op-dbus-plugin@.socket "$units/op-dbus-plugin@.socket" SocketUser=op-dbus "SocketUser=$serviceUser"
    local generator=lib/systemd/system-generators/op-dbus-plugin-generator
    adapt op-dbus-plugin-generator $generator '#!/bin/sh' "#!$shProgram" "$own" "$out/bin/op-dbus"
    chmod 755 "$out/$generator"
}

install_policies() {
    adapt org.opdbus.conf share/dbus-1/system.d/org.opdbus.conf \
        'group="op-dbus"' "group=\"$serviceGroup\"" 'user="op-dbus"' "user=\"$serviceUser\""
    adapt org.opdbus.service share/dbus-1/system-services/org.opdbus.service \
        /bin/false "$falseProgram" User=op-dbus "User=$serviceUser"
    adapt org.opdbus.policy share/polkit-1/actions/org.opdbus.policy \
        unix-user:op-dbus "unix-user:$serviceUser"
    adapt op-dbus.rules share/polkit-1/rules.d/60-op-dbus.rules '"op-dbus"' "\"$serviceUser\""
}

install_documentation() {
    "$out/bin/op-dbus" man --output "$out/share/man/man1"
    install -d "$out"/share/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    "$out/bin/op-dbus" completions bash >"$out/share/bash-completion/completions/op-dbus"
    "$out/bin/op-dbus" completions zsh >"$out/share/zsh/site-functions/_op-dbus"
    "$out/bin/op-dbus" completions fish >"$out/share/fish/vendor_completions.d/op-dbus.fish"
}

install_programs
install_units
install_policies
install_documentation
