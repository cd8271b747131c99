# Sourced by scripts of several parts: what each part took, told when it ends and in a table at the end; and commands
# that run beside the parts.

part_name='' part_since=0 part_cpu=0
# One line a part: seconds, CPU seconds, name. A script that another one starts adds to that one's list.
if [ -z "${AV_PARTS:-}" ]; then
    AV_PARTS=$(mktemp)
    export AV_PARTS
    parts_are_own=1
fi

# Seconds of CPU that ended children have used so far.
children_cpu() {
    times > "$AV_PARTS.times"
    awk -F '[ms ]+' 'NR == 2 { print int($1 * 60 + $2 + $3 * 60 + $4) }' "$AV_PARTS.times"
}

# Begins a part, and ends the one before.
part() {
    part_ends
    part_name=$1 part_since=$SECONDS
    # Not in `$(...)`, which has children of its own.
    children_cpu > "$AV_PARTS.cpu"
    part_cpu=$(< "$AV_PARTS.cpu")
    printf '\n== %s\n' "$part_name"
}

part_ends() {
    [ -n "$part_name" ] || return 0
    children_cpu > "$AV_PARTS.cpu"
    local took=$((SECONDS - part_since)) cpu=$(($(< "$AV_PARTS.cpu") - part_cpu))
    printf '%s %s %s\n' "$took" "$cpu" "$part_name" >> "$AV_PARTS"
    echo "-- $part_name: $took s"
    part_name=''
}

# Ends the last part and prints the table, unless that is for the script that started this one.
part_table() {
    part_ends
    [ -n "${parts_are_own:-}" ] || return 0
    printf '\n== What took how long\n%8s %8s\n' seconds CPU
    awk '{ took = $1; cpu = $2; $1 = $2 = ""; printf "%8d %8d %s\n", took, cpu, $0; all += took; used += cpu }
        END { printf "%8d %8d  in all\n", all, used }' "$AV_PARTS"
}

# Starts a command that only takes what the parts leave of the machine. `joined NAME` waits for it.
declare -A beside_pid=() beside_log=()
beside() {
    local name=$1 idle=(nice -n 19)
    shift
    chrt --idle 0 true 2>/dev/null && idle=(chrt --idle 0 nice -n 19)
    beside_log[$name]=$(mktemp)
    "${idle[@]}" "$@" >"${beside_log[$name]}" 2>&1 </dev/null &
    beside_pid[$name]=$!
}

# Shows what such a command has said once it has ended, and has its status. Its CPU counts for the part of this call.
joined() {
    local status
    wait "${beside_pid[$1]}"
    status=$?
    cat "${beside_log[$1]}"
    unset "beside_pid[$1]"
    return $status
}

# What is not finished when the script ends is ended with it.
parts_end() {
    [ ${#beside_pid[@]} -eq 0 ] || kill "${beside_pid[@]}" 2>/dev/null
    [ ${#beside_log[@]} -eq 0 ] || rm -f "${beside_log[@]}"
    [ -z "${parts_are_own:-}" ] || rm -f "$AV_PARTS" "$AV_PARTS.times" "$AV_PARTS.cpu"
}
trap parts_end EXIT
