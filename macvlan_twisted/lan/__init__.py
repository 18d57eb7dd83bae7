"""What Docker does not know of the LAN: conflicts, announcements, DHCP, access from the host."""
