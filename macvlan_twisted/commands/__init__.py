"""The administrator's commands: ``macvlan-twisted COMMAND``."""
