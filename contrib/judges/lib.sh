# shellcheck shell=bash
# What every judge shares: where things are kept, how a case's verdict is
# recorded, and the one line that a judge ends with.
#
# Owns: the cache location, the results directory of one run (results.tsv, one
# case a line; summary.json), the exit codes.  Refuses to know what is judged.
#
# JUDGE-1: a judge ends with "NAME: executed E, skipped S, failed F of T" and
#          E + S + F(not executed) never exceeds T: `executed` counts the cases
#          whose body ran to a verdict, failed ones included.
# JUDGE-2: exit 0 only when nothing failed and something was executed; 1 when a
#          case failed; 2 when the judge could not start (wrong usage, a
#          package that is missing).
# JUDGE-3: whatever waits is bounded by `timeout` or by a read with a limit.

judges_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # used by the judges
root_dir=$(cd "$judges_dir/../.." && pwd)
cache_dir=${SRD_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ucx-srd}
judge=$(basename "$0")
judge_start=$SECONDS

# say MESSAGE: progress, on stderr, with the seconds since the start.
say() { printf '[%4ds] %s: %s\n' "$((SECONDS - judge_start))" "$judge" "$*" >&2; }
die() {
    printf '%s: error: %s\n' "$judge" "$*" >&2
    exit 2
}
# usage: the leading comment of the script, from its second line on.
usage() {
    sed -n '2,/^[^#]/{/^#/!q;s/^# \{0,1\}//;p}' "$0"
}
# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null 2>&1 ||
        die "$1 is missing: install the Debian package $2"
}
need_file() { [[ -e $1 ]] || die "$1 is missing: install the Debian package $2"; }
# need_value OPTION [VALUE]: refuses an option whose value is missing.
need_value() { [[ $# -ge 2 && -n $2 ]] || die "$1 needs a value (see --help)"; }
is_count() { [[ $1 =~ ^[1-9][0-9]{0,8}$ ]]; }

# The command put before each judged program. A string of words, split at
# spaces: `env UCX_TLS=tcp`, `_install/bin/ucx-srd run --soft --`.
# shellcheck disable=SC2034 # used by the judges
default_prefix="$root_dir/_install/bin/ucx-srd run --soft --"
prefix_words=()
set_prefix() {
    read -r -a prefix_words <<<"$1"
    ((${#prefix_words[@]})) || die "--prefix is empty; use 'env' for none"
    if [[ ${prefix_words[0]} == */* && ! -x ${prefix_words[0]} ]]; then
        die "${prefix_words[0]} is not there: build and install first" \
            "(contrib/quickstart), or give --prefix"
    fi
    command -v "${prefix_words[0]}" >/dev/null ||
        die "--prefix: no command ${prefix_words[0]}"
}

# open_results [DIR]: makes the directory of this run's verdicts and logs.
results_dir=
open_results() {
    results_dir=${1:-$cache_dir/results/$judge}
    mkdir -p "$results_dir" || die "cannot make $results_dir"
    results_dir=$(cd "$results_dir" && pwd)
    # Two runs of one judge must not mix their verdicts.
    exec {results_lock}>"$results_dir/.lock"
    flock -n "$results_lock" ||
        die "another $judge writes to $results_dir; give --results DIR"
    find "$results_dir" -mindepth 1 ! -name .lock -delete
    printf 'case\tstatus\tmilliseconds\tdetail\n' >"$results_dir/results.tsv"
}

# result CASE STATUS MILLISECONDS DETAIL; STATUS is one of passed, failed,
# skipped, known (failed as listed), later (failed, and not due yet).
result() {
    local detail=${4:-}
    detail=${detail//$'\t'/ }
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "${3:-0}" "${detail//$'\n'/ }" \
        >>"$results_dir/results.tsv"
    if [[ $2 == failed ]]; then
        say "FAILED $1${detail:+: $detail}"
    fi
}

json_string() {
    local s=${1//\\/\\\\}
    s=${s//\"/\\\"}
    s=${s//$'\t'/ }
    printf '"%s"' "${s//$'\n'/ }"
}

# close_results [NOTE]: prints the skip reasons, the failures and the last
# line; writes summary.json; returns the judge's verdict (JUDGE-2).
close_results() {
    local file=$results_dir/results.tsv passed failed skipped known later total
    read -r passed failed skipped known later total < <(
        awk -F'\t' 'NR > 1 { n[$2]++; t++ } END {
            printf "%d %d %d %d %d %d\n", n["passed"], n["failed"],
                   n["skipped"], n["known"], n["later"], t }' "$file")
    # Lines that begin with SKIP: are what test/run shows above its counts.
    awk -F'\t' 'NR > 1 && $2 == "skipped" { n[$4]++ }
        END { for (r in n) printf "%d\t%s\n", n[r], r }' "$file" | sort -rn |
        awk -F'\t' -v judge="$judge" '{
            printf "SKIP: %s: %d cases: %s\n", judge, $1, $2 }'
    awk -F'\t' -v judge="$judge" 'NR > 1 && ($2 == "known" || $2 == "later") {
        print "SKIP: " judge ": " $1 " failed as listed (" $2 "): " $4 }' "$file"
    if ((failed)); then
        echo "--- failed"
        awk -F'\t' 'NR > 1 && $2 == "failed" { print "        " $1 ": " $4 }' \
            "$file"
    fi
    local executed=$((passed + failed + known + later))
    local verdict=passed
    if ((failed || !executed)); then verdict=failed; fi
    {
        printf '{"judge": %s, "verdict": "%s", "total": %d, "executed": %d, ' \
            "$(json_string "$judge")" "$verdict" "$total" "$executed"
        printf '"passed": %d, "skipped": %d, "failed": %d, "known": %d, ' \
            "$passed" "$skipped" "$failed" "$known"
        printf '"later": %d, "seconds": %d, "prefix": %s, "note": %s}\n' \
            "$later" "$((SECONDS - judge_start))" \
            "$(json_string "${prefix_words[*]:-}")" "$(json_string "${1:-}")"
    } >"$results_dir/summary.json"
    echo "results: $results_dir"
    # For test/run, which adds up such lines; a listed failure is no pass.
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" \
        "$((skipped + known + later))"
    local extra=
    if ((known)); then extra+=", $known failed as known"; fi
    if ((later)); then extra+=", $later failed and listed as later"; fi
    printf '%s: executed %d, skipped %d, failed %d of %d%s (%d s)\n' "$judge" \
        "$executed" "$skipped" "$failed" "$total" "$extra" \
        "$((SECONDS - judge_start))"
    if ((!executed)); then
        echo "$judge: nothing was executed, which is a failure" >&2
    fi
    [[ $verdict == passed ]]
}

now_ms() { echo "$((${EPOCHREALTIME/[.,]/} / 1000))"; }

# free_port: a TCP port that nobody listened on a moment ago, below the range
# that the kernel gives to outgoing connections.
free_port() {
    local port tries
    for ((tries = 0; tries < 200; tries++)); do
        port=$((10000 + RANDOM % 20000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return 0
        fi
    done
    die "found no free TCP port"
}

# last_line FILE: what a failing program said last, for the detail column.
last_line() {
    grep -v '^[[:space:]]*$' "$1" 2>/dev/null | tail -n 1 | cut -c1-200 || true
}
