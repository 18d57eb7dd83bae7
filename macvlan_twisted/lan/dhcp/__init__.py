"""DHCP from the LAN's own server: one state machine a lease, on the wire of the container's parent."""

from .confirming import State
from .facts import Client, LanFacts, LeaseFacts
from .farewell import release
from .holder import Holder
from .inquiry import ask_around
from .lease import Lease

__all__ = ["Client", "Holder", "LanFacts", "Lease", "LeaseFacts", "State", "ask_around", "release"]
