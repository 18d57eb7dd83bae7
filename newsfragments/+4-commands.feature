``macvlan-twisted purge`` removes everything of ours from a host and says what it removed; ``macvlan-twisted sandboxes``
tells of network namespaces that an engine left mounted, and removes those that nobody has.
