With Docker's own IPAM and conflict detection, a burst of containers waits for fewer address probes, and a second one within ten
minutes for none: the plugin holds as many of the next addresses as were requested at once before, and fewer again later.
