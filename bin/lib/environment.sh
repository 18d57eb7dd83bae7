# shellcheck shell=bash
# What bin/demo, bin/test and .ci/run share: a virtual environment of their own, and packages of the distribution.
#
# Everything that is kept lies in one directory, $MACVLAN_TWISTED_CACHE, by default ~/.cache/macvlan-twisted;
# removing it costs nothing but the time to make it again.

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export MACVLAN_TWISTED_CACHE=${MACVLAN_TWISTED_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/macvlan-twisted}
export HOME=${HOME:-/root}
export PATH=$PATH:/usr/sbin:/sbin
POLICY=/usr/sbin/policy-rc.d
POLICY_KEPT=$POLICY.kept-by-macvlan-twisted
POLICY_MARK='# put here by macvlan-twisted while it installs packages: starts no services'

say() { printf '%s\n' "$*"; }

stop() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# With --help or -h: show the comment at the head of the program, and no more.
help() {
    case " $* " in *" --help "* | *" -h "*)
        sed -n '2,/^[^#]/s/^#\( \|$\)//p' "$0"
        exit
        ;;
    esac
}

# The packages of those programs that the machine lacks; a word is PROGRAM=PACKAGE.
missing_packages() {
    local word
    for word in "$@"; do
        command -v "${word%%=*}" >/dev/null || printf '%s\n' "${word#*=}"
    done
}

restore_policy() {
    if [ -e "$POLICY_KEPT" ]; then
        mv -f "$POLICY_KEPT" "$POLICY"
    elif grep -qsF "$POLICY_MARK" "$POLICY"; then
        rm -f "$POLICY"
    fi
}

# Install packages from the distribution; apt would start the services in them, our policy-rc.d says no to that.
# In a subshell, for the sake of its traps: the policy that was there comes back however this ends.
install_packages() (
    [ $# -gt 0 ] || exit 0
    [ "$(id -u)" = 0 ] || stop "missing here: $*. Run this as root, or: apt-get install $*"
    command -v apt-get >/dev/null || stop "missing here: $*. There is no apt-get to install them with"
    mkdir -p "$MACVLAN_TWISTED_CACHE"
    exec 9>"$MACVLAN_TWISTED_CACHE/packages.lock"
    flock 9
    restore_policy # a killed run may have left ours
    trap restore_policy EXIT
    trap 'exit 130' INT TERM HUP
    [ ! -e "$POLICY" ] || mv "$POLICY" "$POLICY_KEPT"
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
    chmod 755 "$POLICY"
    export DEBIAN_FRONTEND=noninteractive
    say "\$ apt-get install $*      (services in them are not started)"
    log=$MACVLAN_TWISTED_CACHE/packages.log
    try() { apt-get "$@" -o DPkg::Lock::Timeout=300 </dev/null >>"$log" 2>&1 9>&-; }
    : >"$log"
    try install --yes --no-install-recommends "$@" || {
        try update && try install --yes --no-install-recommends "$@"
    } || {
        tail -n 20 "$log" >&2
        stop "apt-get could not install $* (all that it said: $log)"
    }
)

# A Python of at least 3.11: the machine's python3, else the lowest later one that it has.
find_python() {
    local name
    for name in python3 python3.11 python3.12 python3.13 python3.14 python3.15; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

# The requirements that setup.cfg lists: those of the product, and those of the extras that are named.
requirements() {
    python3 - "$CHECKOUT/setup.cfg" "$@" <<'END'
import configparser, sys
setup = configparser.ConfigParser()
setup.read(sys.argv[1])
print(setup["options"]["install_requires"].strip())
for extra in sys.argv[2:]:
    print(setup["options.extras_require"][extra].strip())
END
}

# ensure_venv DIRECTORY PYTHON [EXTRA]...: make or complete a virtual environment with what setup.cfg requires,
# without the product itself: that runs from the checkout. Nothing is done when nothing has changed.
ensure_venv() {
    local venv=$1 python=$2 wanted told
    shift 2
    mkdir -p "$MACVLAN_TWISTED_CACHE"
    wanted=$(requirements "$@") || return
    told=$venv/.installed-$(printf '%s' "$*" | tr ' ' -)
    (
        flock 9
        [ -x "$venv/bin/python" ] && [ "$(cat "$told" 2>/dev/null)" = "$wanted" ] && exit 0
        say "\$ python -m venv $venv && pip install ...      (once, some seconds)"
        if ! "$venv/bin/python" -c '' 2>/dev/null; then
            rm -rf "$venv"
            "$python" -m venv "$venv" || exit
        fi
        printf '%s\n' "$wanted" >"$venv/requirements.txt"
        "$venv/bin/python" -m pip install --disable-pip-version-check --root-user-action=ignore \
            -r "$venv/requirements.txt" </dev/null >"$venv/pip.log" 2>&1 9>&- || {
            tail -n 20 "$venv/pip.log" >&2
            exit 1
        }
        printf '%s\n' "$wanted" >"$told"
    ) 9>"$venv.lock"
}

# Python itself, and its venv module, which Debian keeps in a package of its own.
ensure_python() {
    PYTHON=$(find_python) || {
        install_packages python3 python3-venv
        PYTHON=$(find_python) || stop "macvlan-twisted needs Python 3.11 or later, which this distribution lacks"
    }
    if ! "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null; then
        install_packages "python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    VENV=$MACVLAN_TWISTED_CACHE/venv-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
}

OLDER_PYTHONS=' 3.0 3.1 3.2 3.3 3.4 3.5 3.6 3.7 3.8 3.9 3.10 '

# Every Python later than $PYTHON that the machine has, one of each minor version.
later_pythons() {
    local name seen version
    seen=" $("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') "
    for name in python3.{12..19} /usr/bin/python3.{12..19} "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3; do
        version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $seen$OLDER_PYTHONS in *" $version "*) continue ;; esac
        seen="$seen$version "
        "$name" -c 'import sys; print(sys.executable)'
    done
}
