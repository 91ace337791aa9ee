# Sourced by both runs of CI: what they share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Keeps torch at a build for CPUs, so that the README's commands stay the ones that users type.
export PIP_CONSTRAINT="$PWD/.ci/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1

notes=$(mktemp -d)
touch "$notes/seconds" "$notes/beside"

# step NAME COMMAND...: run it in this shell, so that it may activate an environment, and note its seconds.
step() {
    local name=$1 begin=$SECONDS
    shift
    echo "+ $name"
    "$@"
    printf '%5d s  %s\n' $((SECONDS - begin)) "$name" >> "$notes/seconds"
}

# together FIRST SECOND: two functions at the same time. What the second says is kept until the end.
together() {
    set -m # each gets a process group, so that it can be ended with all that it has started
    "$1" & pids="-$!"
    "$2" > "$notes/beside" 2>&1 & pids+=" -$!"
    wait -n # fails where the one that ends first has failed: nobody waits for the tests after an error of mypy
    wait -n
    pids=""
    set +m
}

pids=""
the_end() {
    local status=$?
    # shellcheck disable=SC2086 - several numbers
    [ -z "$pids" ] || kill -- $pids 2> /dev/null || true
    cat "$notes/beside" "$notes/seconds"
    echo "$SECONDS s in all, $([ $status = 0 ] && echo passed || echo "failed with $status")"
    rm -r "$notes"
}
trap the_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM # otherwise the end would see the status of the last command, which may be good

# A browser for the tests of the pages; where it cannot be installed, those are skipped and say so.
browser() {
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null && ! command -v chromium > /dev/null; then
        (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) > /dev/null || true
    fi
}

# npm, and with it the true vocabulary of Qwen; where it cannot be had, the tests that count with it are skipped and say so.
vocabulary() {
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null && ! command -v npm > /dev/null; then
        (apt-get update -qq && apt-get install -y -qq --no-install-recommends npm) > /dev/null || true
    fi
    python3 -m tests.qwen_vocabulary || true
}
