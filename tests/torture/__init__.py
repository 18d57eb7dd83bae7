"""What takes minutes and tries to break us: each module is a part of ``bin/torture``."""
