#!/bin/sh
# Prints an interpreter that can hold scgap: Python 3.12 or newer, able to make a virtual environment with pip in it;
# of a certain version, where one is asked for: `tools/find-python.sh 3.13`.
# Every candidate is run, not merely looked up: a version manager's shim may be on the PATH and still fail.

wanted=${1:-'3.12 or newer'}
probe='
import sys
if sys.version_info < (3, 12) or sys.argv[1] not in ("3.12 or newer", "%d.%d" % sys.version_info[:2]):
    sys.exit(10)
try:
    import ensurepip, ssl, venv
    ensurepip.version()
except Exception:
    sys.exit(11)
'
tried=

for candidate in "$PYTHON" ${1:+"python$1"} python3.14 python3.13 python3.12 python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python; do
    [ -n "$candidate" ] || continue
    command -v "$candidate" >/dev/null 2>&1
    found=$?
    "$candidate" -c "$probe" "$wanted" >/dev/null 2>&1
    case $?:$found in
        0:*) printf '%s\n' "$candidate"; exit 0 ;;
        10:*) reason="is not $wanted" ;;
        11:*) reason='lacks venv, ensurepip or ssl (on Debian and Ubuntu: install its -venv package)' ;;
        *:0) reason='is there but fails when run' ;;
        *) reason='not found' ;;
    esac
    tried="$tried
  $candidate: $reason"
done

printf '%s\n' >&2 \
    "scgap needs Python $wanted with its venv module, and none was found. Tried:$tried" \
    '' \
    'Install one of these and run the same command again:' \
    '  Debian, Ubuntu   apt install python3.12 python3.12-venv' \
    '  macOS            brew install python@3.13' \
    '  pyenv            pyenv install 3.13' \
    '  anywhere else    the installer from python.org' \
    'or name an interpreter: PYTHON=/path/to/python make ...'
exit 1
