#!/bin/bash
# What tests in a whole system say and count: each thing that must hold is a line that begins with "ok" or
# "FAILED". A part of system.sh and of nixos/system.sh, which name the unit that is looked at.

passed=0
failed=0

# Says whether a command succeeds.
holds() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok      $what"
    else
        failed=$((failed + 1))
        echo "FAILED  $what: $*"
        echo "$output" | tail -n 20 | sed 's/^/        /'
    fi
}

# Succeeds if a command fails and says a text.
refused_with() {
    local text=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "it succeeded: $output"
        return 1
    fi
    echo "$output"
    [[ $output == *"$text"* ]]
}

# Succeeds if a command does and says a text.
says() {
    local text=$1 output
    shift
    output=$("$@" 2>&1) || { echo "$output" && return 1; }
    echo "$output"
    [[ $output == *"$text"* ]]
}

# Succeeds when a command does, for which it has some seconds.
soon() {
    local seconds=$1 end=$((SECONDS + $1))
    shift
    until "$@"; do
        if [[ $SECONDS -ge $end ]]; then
            echo "not within $seconds s"
            return 1
        fi
        sleep 0.1
    done
}

# Runs a command, or a function of this script, as another user in that user's groups.
as() {
    local user=$1
    shift
    # shellcheck disable=SC2016 # the inner shell expands
    setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups bash -c '"$@"' - "$@"
}

property() {
    systemctl show --property="$1" --value "${2:-$unit}"
}

has() { [[ $(property "$1") == "$2" ]]; }
is_running() { has ActiveState active; }
# Succeeds if the service runs, and not as this process.
is_another_process() {
    local process
    process=$(property MainPID)
    [[ $process != 0 && $process != "$1" ]] && is_running
}

# Succeeds if all that a command says are lines that begin so; nothing at all without a beginning.
says_only() {
    local beginning=$1 output
    shift
    output=$("$@" 2>&1) || { echo "$output" && return 1; }
    if [[ -n $beginning ]]; then output=$(grep -v "^$beginning" <<<"$output"); fi
    echo "$output"
    [[ -z $output ]]
}

# Counts, and says what there is to say of a failure. The exit code of whoever calls this last.
sum_up() {
    if [[ $failed -gt 0 ]]; then
        systemctl status "$unit"
        journalctl --boot --no-hostname --output=short-precise | tail -n 100
    fi
    echo "passed $passed, failed $failed"
    [[ $failed -eq 0 ]]
}
