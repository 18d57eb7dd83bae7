"""What the running kernel may lack (802.1Q, dummy, ipvlan), tested under a user-mode Linux kernel.

``python -m tests.uml.boot`` boots that kernel and runs the tests of :mod:`tests.uml.inside` in it.
"""
