``bin/benchmark`` measures the plugin beside the kernel's own floor and beside the engine's built-in macvlan driver, in one run.
Endpoints are made and removed more than twice as fast when many callers ask, and half as fast again when one does; a million addresses take less than 150 bytes of memory each.
