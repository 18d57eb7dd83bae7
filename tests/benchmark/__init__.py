"""How fast we are, beside our peers and the kernel's own floor, in one run: each module is a part of ``bin/benchmark``."""
