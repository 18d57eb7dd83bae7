"""
macvlan-twisted: a Docker network and IPAM plugin that puts containers straight onto the LAN.

To run it beside other Twisted services, see :func:`macvlan_twisted.service.make_macvlan_service`.
"""

from ._version import VERSION_TEXT, __version__

__all__ = ["VERSION_TEXT", "__version__"]
