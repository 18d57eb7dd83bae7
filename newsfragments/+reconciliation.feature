What containers and networks left behind that ended while the plugin was away, or when the engine was killed (endpoints,
links, addresses, DHCP leases, networks, pools), is removed in the background, once it is proved that nobody has it. See
``--reconcile-interval``; with ``--docker-host none`` no engine is asked, and the kernel alone is believed.
