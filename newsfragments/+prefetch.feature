A second burst of containers within ten minutes does not wait for address probes: the plugin holds as many free addresses as were
requested at once before, and fewer again later. Probing begins at RequestPool, at the start of the service (a few pools at a
time), and when a parent appears.
