At most 50 probes a second begin on a LAN, after a burst of 128: a host that starts hundreds of containers does not flood it
with broadcasts.
