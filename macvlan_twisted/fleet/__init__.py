"""
Several Docker hosts on one LAN that share its addresses through etcd.

Each address is owned by one host at most. A host claims addresses before it needs them, so a container's start does not wait
for etcd, and no running container depends on it.
"""
