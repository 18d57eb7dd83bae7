import sys

from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from macvlan_twisted.config import Config
from macvlan_twisted.service import make_macvlan_service

observer = textFileLogObserver(sys.stderr)
globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
service = make_macvlan_service(Config(host_interface="eth1"), reactor=reactor)
service.startService()
reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
reactor.run()
