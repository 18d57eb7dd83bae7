"""
macvlan-twisted: a Docker network and IPAM plugin that puts containers straight onto the LAN.

To run it beside other Twisted services, see :func:`macvlan_twisted.service.make_macvlan_service`.
"""

from ._version import VERSION_TEXT, __version__
from .without_tls import import_endpoints

import_endpoints()  # before any other module of ours imports them

__all__ = ["VERSION_TEXT", "__version__"]
