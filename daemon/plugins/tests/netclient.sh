# Answers as netclient does. Whoever runs it says before this where its state is, in $state, and makes
# marks there of what is to go wrong. The system's test has it in a container, too.
echo "$@" >> "$state/log"
echo "[netclient] 2024-01-01 $1 called"
echo "a warning" >&2
fail() { if [ -e "$state/fail-$1-$2" ]; then cat "$state/fail-$1-$2"; exit 0; fi; }
case "$1" in
list)
    [ ! -e "$state/hang-list" ] || sleep 30
    [ ! -e "$state/huge-list" ] || head -c 3000000 /dev/zero | tr '\0' x
    part=; for n in "$state"/net-*; do
        [ -e "$n" ] || { echo; echo "no such network"; exit 0; }
        [ "$part" ] || echo "["
        printf '%s {"network": "%s", "node_id": "1", "connected": %s, "ipv4_addr": ""}\n' \
            "$part" "${n##*/net-}" "$(cat "$n")"; part=,
    done; echo "]";;
join)
    [ "$2" = -t ]; net="${3##*.}"
    [ ! -e "$state/crash-join" ] || { echo "could not read enrollment token $3" >&2; exit 1; }
    [ ! -e "$state/fail-join-$net" ] || { echo "registration failed: Post https://x/$3: no host" >&2; exit 0; }
    [ ! -e "$state/cut-join" ] || { printf 'bad token %.20s\n' "$3" >&2; exit 1; }
    if [ -e "$state/slow-join" ]; then (sleep 1; echo true > "$state/net-$net") >/dev/null 2>&1 &
    else echo true > "$state/net-$net"; fi;;
leave) fail leave "$2"; [ -e "$state/net-$2" ] || { echo "not connected to network: $2"; exit 0; }
    rm "$state/net-$2"; echo "successfully left network  $2";;
connect) fail connect "$2"; echo true > "$state/net-$2"; echo; echo "node is connected to $2";;
disconnect) fail disconnect "$2"; echo false > "$state/net-$2"; echo; echo "node is disconnected from $2";;
*) echo "unknown command" >&2; exit 1;;
esac
