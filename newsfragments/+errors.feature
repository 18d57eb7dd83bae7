Errors begin with what is wrong and the value, and say what to do. A parent that is not there lists the links of the host that can be one, and asks
*did you mean eth1?* where the name is near; so do option names and modes. An exhausted pool says what helps, and a VLAN or a dummy
link that the kernel refuses names ``modprobe 8021q`` or ``modprobe dummy``.
