"""A throw-away LAN, real Docker Engines and our plugin, for tests and demonstrations.

Only the standard library is used here. The road through the files: `commands` runs programs, `lan` builds a
LAN out of network namespaces, on which `places` acts and looks, with `frames` that no kernel would send;
`namespace_jail` shuts processes into private mount and process-id namespaces, `roots` makes the file systems of
engines newer than the machine's own, `engine` runs a Docker Engine on a docker host, and `plugin` runs our service
beside it. `dhcp_server` and `etcd` run the servers that our service talks to.
"""
