#!/usr/bin/env bash
# Build the wheel, install it into a fresh virtual environment, and use it as its users would: try_wheel.sh PYTHON WORK
#
# All of it happens in the directory WORK, outside the checkout, so that nothing is found which is not in the wheel.
set -euo pipefail
python=$1 work=$2
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
unset PYTHONPATH # an egg-info in the checkout would pass for the installed product
pip() {
    "$work/venv/bin/python" -m pip --disable-pip-version-check "$@" >"$work/pip.log" 2>&1 || {
        cat "$work/pip.log" >&2
        return 1
    }
}

"$python" -m venv "$work/venv"
mkdir "$work/source" "$work/sdist"
# The build leaves directories beside the sources: it gets a copy of them.
if git -C "$checkout" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git -C "$checkout" ls-files -z | tar -C "$checkout" --null --files-from=- -cf - | tar -C "$work/source" -xf -
else
    tar -C "$checkout" --exclude='.*_cache' --exclude=build --exclude='*.egg-info' --exclude=PKG-INFO -cf - . |
        tar -C "$work/source" -xf -
fi

echo "a source distribution with all that is in a checkout, and a wheel from it"
(cd "$work/source" && find . -type f -printf '%P\n') | sort >"$work/in-checkout.txt"
pip install setuptools incremental
(cd "$work/source" && "$work/venv/bin/python" -c "from setuptools.build_meta import build_sdist; build_sdist('$work/sdist')") \
    >"$work/sdist.log" 2>&1 || { cat "$work/sdist.log" >&2; exit 1; }
tar -tzf "$work"/sdist/*.tar.gz | sed -n 's,^[^/]*/\(.*[^/]\)$,\1,p' |
    grep -vE '^(PKG-INFO|macvlan_twisted\.egg-info/.*)$' | sort >"$work/in-sdist.txt"
diff "$work/in-checkout.txt" "$work/in-sdist.txt" || { echo "the source distribution differs from the checkout" >&2; exit 1; }
pip wheel --no-deps --wheel-dir "$work/wheel" "$work"/sdist/*.tar.gz

echo "a wheel from a checkout in which an earlier version was built: nothing of that is in it"
mkdir -p "$work/source/build/lib/twisted/plugins"
touch "$work/source/build/lib/twisted/plugins/of_an_earlier_version.py"
pip wheel --no-deps --wheel-dir "$work/again" "$work/source"
in_wheel() { "$python" -m zipfile --list "$1" | awk '{ print $1 }' | sort; }
diff <(in_wheel "$work"/wheel/*.whl) <(in_wheel "$work"/again/*.whl) || { echo "the wheels differ" >&2; exit 1; }

pip install "$work"/wheel/*.whl
cd "$work"
export PATH=$work/venv/bin:$PATH

twistd macvlan --help >help.txt
grep -q -- --host-interface help.txt
twist macvlan --version
python -m twisted macvlan --version
macvlan-twisted --version
python -c 'import macvlan_twisted, pathlib; assert pathlib.Path(macvlan_twisted.__file__).with_name("py.typed").exists()'

echo "a daemon, with --pidfile and --logfile"
options=(--plugin-dir "$work/plugins" --state-dir "$work/state" --runtime-dir "$work/run" --docker-host none)
twistd --pidfile="$work/twistd.pid" --logfile="$work/twistd.log" macvlan "${options[@]}"
pid=$(cat "$work/twistd.pid")
trap 'kill "$pid" 2>/dev/null || :' EXIT
[ -S "$work/plugins/macvlan-twisted.sock" ]
grep -q "driver initialised" "$work/twistd.log"
kill "$pid"
for _ in $(seq 100); do
    [ -e "/proc/$pid" ] || break
    sleep 0.1
done
[ ! -e "/proc/$pid" ] || { echo "the daemon did not end" >&2; exit 1; }
trap - EXIT
[ ! -e "$work/plugins/macvlan-twisted.sock" ] || { echo "the socket was left behind" >&2; exit 1; }
[ ! -e "$work/twistd.pid" ] || { echo "the pidfile was left behind" >&2; exit 1; }
! grep -E "Traceback|Unhandled" "$work/twistd.log"
echo "it started, answered to SIGTERM, and left nothing behind"
