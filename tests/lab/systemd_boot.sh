#!/bin/sh
# The first process of a machine in namespaces (mount, PID, cgroup, IPC, UTS) becomes a real systemd.
#
#     systemd_boot.sh ROOT PYTHON_BASE PYTHON_ENVIRONMENT CHECKOUT
#
# / is the machine's own under a layer that forgets: nothing is ever written to it. /run/docker and /tmp are those
# that we find, and shared with an engine. Of systemd's units there are only those in ROOT/units.
set -eu
root=$1 base=$2 environment=$3 checkout=$4

mount -t tmpfs -o mode=0755 layer "$root/layer"
mkdir "$root/layer/upper" "$root/layer/work" "$root/layer/root"
new=$root/layer/root
mount -t overlay -o "lowerdir=/,upperdir=$root/layer/upper,workdir=$root/layer/work" overlay "$new"
mount -t proc proc "$new/proc"
mount --bind /proc/sys "$new/proc/sys"  # of the host's network, as the process is that mounts it
mount --rbind /sys "$new/sys"
mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
mount --rbind /dev "$new/dev"
mount --rbind /tmp "$new/tmp"
mount -t tmpfs -o mode=0755 run "$new/run"
mkdir "$new/run/docker"
mount --rbind /run/docker "$new/run/docker"

# As after installing: a virtual environment in /opt, the files of systemd/ where the manual puts them.
opt=$new/opt/macvlan-twisted
mkdir -p "$opt/bin" "$opt/lib" "$opt/base" "$opt/checkout" "$new/etc/sysusers.d" "$new/etc/default"
mount --bind "$base" "$opt/base"
mount --bind "$environment/lib" "$opt/lib"
mount --bind "$checkout" "$opt/checkout"
for name in base lib checkout; do
    mount -o remount,bind,ro "$opt/$name"  # nothing that is typed here may change them, rm -r /opt/macvlan-twisted least of all
done
ln -s ../base/bin/python3 "$opt/bin/python3"
echo "home = /opt/macvlan-twisted/base/bin" >"$opt/pyvenv.cfg"
cat >"$opt/bin/twistd" <<'END'
#!/opt/macvlan-twisted/bin/python3
import sys
sys.path.insert(0, "/opt/macvlan-twisted/checkout")
from twisted.scripts.twistd import run
run()
END
cat >"$opt/bin/macvlan-twisted" <<'END'
#!/opt/macvlan-twisted/bin/python3
import sys
sys.path.insert(0, "/opt/macvlan-twisted/checkout")
from macvlan_twisted.commands.cli import main
sys.exit(main(sys.argv[1:]))
END
chmod 755 "$opt" "$opt/bin" "$opt/bin/twistd" "$opt/bin/macvlan-twisted"
mkdir -p "$opt/share/macvlan-twisted"
ln -s ../../checkout/systemd "$opt/share/macvlan-twisted/systemd"
cp "$checkout/systemd/macvlan-twisted.sysusers" "$new/etc/sysusers.d/macvlan-twisted.conf"
rm -rf "$new/etc/systemd/system" "$new/var/lib/macvlan-twisted"
cp -r "$root/units" "$new/etc/systemd/system"

cd "$new"
mkdir -p mnt
pivot_root . mnt
umount --lazy /mnt
systemd-sysusers macvlan-twisted.conf
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_GENERATOR_PATH=/nonexistent \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no --crash-reboot=no
