"""What ``twistd`` and ``twist`` find: the sub-command ``macvlan``. Importing it imports nothing of ours."""

from twisted.application.service import ServiceMaker

macvlan = ServiceMaker(
    "macvlan-twisted",
    "macvlan_twisted.tap",
    "Docker network and IPAM plugin: containers straight on the LAN with macvlan",
    "macvlan",
)
