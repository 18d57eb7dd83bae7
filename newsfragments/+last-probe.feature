With conflict detection, a container waits neither for the last probe of its address nor for a list of the host's own
addresses: the answer is looked for when the address is allocated and again when the container's link exists.
