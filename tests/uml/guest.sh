#!/bin/sh
# The guest's first process: make a small machine out of a read-only root, run the job, tell its status, power off.
#
# boot.py copies this next to "job" (what to run) and "keep" (paths in /tmp that must still be seen).
# ttyS0 carries the job's output, ttyS1 its exit status, the console everything that goes wrong here.
here=${0%/*}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm

mount -t tmpfs tmpfs /run
mkdir /run/lock /run/host-tmp
mount --bind /tmp /run/host-tmp
mount -t tmpfs tmpfs /tmp
while read -r path; do
    mkdir -p "$path"
    mount --bind "/run/host-tmp/${path#/tmp/}" "$path"
done <"/run/host-tmp/${here#/tmp/}/keep"

stty -F /dev/ttyS0 raw
stty -F /dev/ttyS1 raw
# The package keeps its modules away from /lib/modules, and kmod need not be installed: load them by their list,
# which names what a module needs after it, the first one last.
load() {
    grep "/$1.ko:" modules.dep | tr -d : | tr ' ' '\n' | tac | while read -r file; do
        [ -e "/sys/module/$(basename "$file" .ko | tr - _)" ] || busybox insmod "$file"
    done
}
cd "/usr/lib/uml/modules/$(uname -r)"
for module in 8021q bridge dummy ipv6 ipvlan macvlan veth; do
    load "$module" 2>/dev/ttyS0
done

hostname uml
ip link set lo up

sh "$here/job" >/dev/ttyS0 2>&1 </dev/null
echo $? >/dev/ttyS1

echo o >/proc/sysrq-trigger
# Powering off takes a moment, and the kernel panics when its first process ends before that.
sleep 60
