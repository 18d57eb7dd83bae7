"""DHCPv4 leases from the LAN's own server: one RFC 2131 state machine a lease, on the parent's packet socket."""
