``macvlan_twisted.service.make_macvlan_service`` gives the plugin as a Twisted service, for a ``.tac`` file or beside other services.
