"""
Several Docker hosts on one LAN: what a host shares with the others, in an etcd cluster.

Nothing here is imported unless a fleet is configured.
"""
