"""The first process of a cave: arranges its mounts, then keeps it open until standard input ends.

Run as a program by :mod:`tests.lab.namespace_jail`, inside fresh mount and process-id namespaces, with one argument:
the JSON text of a mapping with the members of :class:`tests.lab.namespace_jail.Mounts`. It must not import anything
of ours.
"""

import json
import os
import signal
import subprocess
import sys


def mount(*words: str) -> None:
    """Mount something; an error ends the program with mount's own message."""
    subprocess.run(("mount", *words), check=True, timeout=100)


def change_root(root: str, visible: list[str]) -> None:
    """Make `root` the root of this mount namespace, with the machine's devices and the `visible` paths in it.

    A chroot would not do: when an engine unpacks an image it changes how / is mounted, and in a chroot / is
    no mount point.
    """
    mount("--bind", root, root)
    mount("-t", "proc", "proc", f"{root}/proc")
    for path in ("/sys", "/dev", "/run", "/tmp"):
        mount("--rbind", path, root + path)
    for path in visible:
        if not os.path.isdir(root + path):
            os.makedirs(root + path)
            mount("--rbind", path, root + path)
    mount("-o", "remount,bind,ro", root)  # several engines may share it
    os.chdir(root)
    subprocess.run(("pivot_root", ".", "mnt"), check=True, timeout=100)
    os.chdir("/")
    subprocess.run(("umount", "--lazy", "/mnt"), check=True, timeout=100)


def open_window(shared: list[str]) -> None:
    """Put a tmpfs over the `shared` paths, and start a child for which all else stays as it is now.

    The child is in a mount namespace of its own. What is mounted below the shared paths later, by either, both
    see, however the cave is furnished and whatever becomes its root.
    """
    for path in shared:
        os.makedirs(path, exist_ok=True)
        mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", path)
        mount("--make-shared", path)
    own = ("unshare", "--mount", "--propagation", "unchanged", "--")
    command = (*own, "sh", "-c", "echo open; exec sleep infinity")
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert child.stdout is not None
    if child.stdout.readline() != b"open\n":
        sys.exit("the cave's window did not open")


def main() -> None:
    """Furnish the cave, say so, and wait."""
    furniture = json.loads(sys.argv[1])
    if furniture["shared"]:
        open_window(furniture["shared"])
    if furniture["root"] is None:
        mount("-t", "proc", "proc", "/proc")
    else:
        change_root(furniture["root"], furniture["visible"])
    for path in furniture["empty"]:
        os.makedirs(path, exist_ok=True)
        mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", path)
    for path, source in furniture["binds"].items():
        os.makedirs(path, exist_ok=True)
        mount("--bind", source, path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans become our children: let the kernel bury them
    print("the cave is furnished", flush=True)
    sys.stdin.read()


main()
