Log lines begin with their object (``container web: link mv... created on parent eth1, ...``), and name containers and networks as Docker
does where the names are known. The start of a container is one line at info, and so are its stop, the creation of a network and its
removal; routine lines are at debug. ``docker network create`` is told in the log when ``--ipam-driver`` was forgotten, and when the subnet is
not that of the parent.
