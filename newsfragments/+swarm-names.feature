A task of a swarm service inherits the address and the MAC of the task before it in its slot, with an engine that sends names (29).
