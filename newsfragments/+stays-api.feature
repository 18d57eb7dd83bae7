Where the engine's API may be asked, the plugin knows which container had which address: the address of a container that
exists and does not run goes to nobody else while another one is free, and the only one that does not run gets its address back at
any time, also after a reboot.
