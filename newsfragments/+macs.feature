MAC addresses are derived from the IP address, so a container that keeps its address keeps its MAC. One that is in use on the parent is told before the container starts.
