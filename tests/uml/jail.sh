#!/bin/sh
# Run a guest with the host's files out of its reach:  jail.sh SCRATCH MEMORY linux ARGUMENT...
#
# For a mount and a PID namespace of its own (unshare --mount --pid). SCRATCH becomes a tmpfs, for the file that
# is the guest's memory and for its control socket; everything else becomes read-only. The guest mounts its root
# read-only anyway: this is for the day when a test remounts it.
set -eu
scratch=$1
memory=$2
shift 2

mount -t tmpfs -o "mode=0700,size=$memory" uml "$scratch"
# Read the whole list before changing it. A mount that cannot be remounted is hidden by another one, or not ours.
mounts=$(cut -d ' ' -f 5 /proc/self/mountinfo)
for mount in $mounts; do
    mount=$(printf '%b' "$mount")
    [ "$mount" = "$scratch" ] || mount -o remount,bind,ro "$mount" 2>/dev/null || :
done
if [ -w / ]; then
    echo "jail.sh: cannot make the host's files read-only for the guest" >&2
    exit 1
fi

# Not exec: a kernel that is process 1 of its namespace would not hear the signals it sends itself.
TMPDIR=$scratch "$@"
