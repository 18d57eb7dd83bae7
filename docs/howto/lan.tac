from ipaddress import ip_address, ip_network

from twisted.application.internet import TimerService
from twisted.application.service import Application, MultiService

from macvlan_twisted.config import Config
from macvlan_twisted.service import make_macvlan_service

config = Config(
    host_interface="eth1",
    subnets=(ip_network("192.168.1.0/24"),),
    gateways=(ip_address("192.168.1.1"),),
    ip_ranges=(ip_network("192.168.1.128/25"),),
)

application = Application("lan")
services = MultiService()
services.setServiceParent(application)
make_macvlan_service(config).setServiceParent(services)
TimerService(60, print, "still here").setServiceParent(services)
