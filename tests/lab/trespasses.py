"""
A program of its own, run under the options of our unit: it tries what the service must not be able to do, and what it must.

Prints what became of each: ``done``, or the name of the error.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import stat
import subprocess
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library, and raise its error."""
    if getattr(LIBC, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read(path: str) -> None:
    """Read a file, or list a directory, in which something must be."""
    if os.path.isdir(path):
        if not os.listdir(path):
            raise OSError(errno.ENOENT, "empty")
        return
    with open(path, "rb") as file:
        file.read(1)


def write(path: str) -> None:
    with open(path, "a"):
        pass


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as it:
        it.connect(path)


def as_shell(text: str) -> None:
    subprocess.run(("sh", "-c", text), check=True, capture_output=True)


def see_others() -> None:
    if len([each for each in os.listdir("/proc") if each.isdigit()]) < 2 or not os.path.exists("/proc/1"):
        raise OSError(errno.ENOENT, "nobody is seen")


def write_and_execute() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def set_uid_bit() -> None:
    path = "/var/lib/macvlan-twisted/x"
    write(path)
    try:
        os.chmod(path, stat.S_ISUID | 0o755)
    finally:
        os.unlink(path)


def raise_capability() -> None:
    """Ask for all rights in the effective set (capset of version 3)."""
    call("capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*(0xFFFFFFFF,) * 6))


FORBIDDEN = {
    "read /root": lambda: read("/root/secret"),
    "read /home": lambda: read("/home/x"),
    "read /etc/shadow": lambda: read("/etc/shadow"),
    "write /etc": lambda: write("/etc/cron.d/x"),
    "write /opt": lambda: write("/opt/macvlan-twisted/bin/twistd"),
    "write /usr": lambda: write("/usr/bin/x"),
    "write /var": lambda: write("/var/lib/x"),
    "write /run": lambda: write("/run/x"),
    "write /run/docker": lambda: write("/run/docker/plugins/x.sock"),
    "remove the plugin's socket": lambda: os.unlink("/run/docker/plugins/macvlan-twisted.sock"),
    "write /dev/shm": lambda: write("/dev/shm/../kmsg"),
    "write another sysctl": lambda: write("/proc/sys/kernel/core_pattern"),
    "write /sys": lambda: write("/sys/kernel/uevent_helper"),
    "sysrq": lambda: write("/proc/sysrq-trigger"),
    "open the engine's socket": lambda: connect("/var/run/docker.sock"),
    "open the plugin's socket": lambda: connect("/run/docker/plugins/macvlan-twisted.sock"),
    "see other processes": see_others,
    "signal another process": lambda: os.kill(1, 0),
    "trace another process": lambda: call("ptrace", 16, 1, 0, 0),
    "enter another network": lambda: call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0x40000000),
    "make a user namespace": lambda: call("unshare", 0x10000000),
    "make a mount namespace": lambda: call("unshare", 0x00020000),
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "change the root": lambda: os.chroot("/tmp"),
    "become root": lambda: os.setuid(0),
    "give a file away": lambda: os.chown("/var/lib/macvlan-twisted", 0, 0),
    "set a set-uid bit": set_uid_bit,
    "raise a capability": raise_capability,
    "load a module": lambda: call("init_module", b"x", 1, b""),
    "read kernel memory": lambda: read("/dev/mem"),
    "read a disk": lambda: read("/dev/vda"),
    "make a device": lambda: os.mknod("/var/lib/macvlan-twisted/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1)),
    "read the kernel's log": lambda: call("klogctl", 3, ctypes.create_string_buffer(99), 99),
    "set the clock": lambda: call("settimeofday", (ctypes.c_long * 2)(0, 0), None),
    "set the host's name": lambda: call("sethostname", b"x", 1),
    "have real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)),
    "memory to write and execute": write_and_execute,
    "speak IPv4": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "speak IPv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM),
    "other kinds of sockets": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    "reboot": lambda: call("reboot", 0),
    "another personality": lambda: call("personality", 0x0040000),
    "io_uring": lambda: call("syscall", 425, 1, ctypes.create_string_buffer(120)),
    "bpf": lambda: call("syscall", 321, 0, None, 0),
    "root by sudo": lambda: as_shell("sudo -n true"),
}


def packet_socket() -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as it:
        it.bind(("eth1", 0))


def sysctl_of_a_link() -> None:
    with open("/proc/sys/net/ipv4/conf/eth1/arp_ignore", "r+") as file:
        text = file.read()
        file.seek(0)
        file.write(text)


def lock() -> None:
    path = "/var/lib/macvlan-twisted/of-a-test"
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
    os.unlink(path)


def room_for_events() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as it:
        it.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)


def witness() -> None:
    path = "/run/macvlan-twisted/of-a-test"
    write(path)
    os.unlink(path)


NEEDED = {
    "packets": packet_socket,
    "a link's sysctl": sysctl_of_a_link,
    "links": lambda: read("/sys/class/net"),
    "names of links": socket.if_nameindex,
    "the state directory, locked": lock,
    "a directory until the next boot": witness,
    "room for the kernel's events": room_for_events,
}


def outcome_of(deed: Callable[[], object]) -> str:
    try:
        deed()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except (ValueError, subprocess.CalledProcessError) as error:
        return type(error).__name__
    return "done"


signal.signal(signal.SIGSYS, signal.SIG_IGN)
print(
    json.dumps(
        {
            "forbidden": {name: outcome_of(deed) for name, deed in FORBIDDEN.items()},
            "needed": {name: outcome_of(deed) for name, deed in NEEDED.items()},
        }
    )
)
