Clearer names: the command ``macvlan-twisted purge`` (was ``leave``), and the options ``--reconcile-interval`` (was
``--reconcile-every``), ``--probe-timeout`` (``--conflict-wait``), ``--create-network`` (``--network``),
``-o allow_parent_mac_change`` (``force_mac``) and ``-o allow_wireless_parent`` (``force_wifi``). ``--subnet`` is short for
``--macvlan-subnet``. The earlier names go on working, also as environment variables.
