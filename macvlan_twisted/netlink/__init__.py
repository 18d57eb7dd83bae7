"""The kernel: links, read and changed by netlink on threads of our own."""
