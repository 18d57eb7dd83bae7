"""Commands for an administrator, beside the service: ``macvlan-twisted COMMAND``."""
