The systemd unit runs the service as a user of its own with two capabilities, behind a sandbox; what re-addressing and
the engine's API need are files to add. ``--socket-group`` opens the socket to a group. A state directory that belongs to
another user is refused, and new log files have mode 0600.
