#!/usr/bin/env bash
# numba 0.68.1: a cached kernel keeps the old code of a helper from another file.
#
# With `cache=True` numba looks at the file in which a function stands, not at the files from which it calls
# compiled helpers. After a change in a helper's file alone, a new process loads the old kernel and gives the old
# result, without a word; with an empty cache it gives the new one. numba's documentation names this limit.
#
# Versions: numba 0.68.1, numpy 2.4.6, Python 3.11.
# Output seen:
#   the helper adds 1: 2
#   the helper adds 10, same cache: 2
#   the helper adds 10, empty cache: 11
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numba==0.68.1 numpy==2.4.6
cat > "$folder/kernel.py" <<'PY'
from helper import step
from numba import njit


@njit(cache=True)
def kernel(number):
    return step(number)
PY
helper() {
    printf 'from numba import njit\n\n\n@njit\ndef step(number):\n    return number + %s\n' "$1" > "$folder/helper.py"
}
result() { # the cache to use
    (cd "$folder" && NUMBA_CACHE_DIR="$folder/$1" venv/bin/python -c "from kernel import kernel; print(kernel(1))")
}
helper 1
first=$(result kept)
helper 10
second=$(result kept) third=$(result empty)
printf '%s\n' "the helper adds 1: $first" "the helper adds 10, same cache: $second" "the helper adds 10, empty cache: $third"
[ "$first $second $third" = "2 2 11" ]
