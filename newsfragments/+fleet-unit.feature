The systemd drop-in ``fleet.conf`` lets the service connect to etcd, which the unit forbids otherwise: :doc:`howto/fleet-etcd`.
