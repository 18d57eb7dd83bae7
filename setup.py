"""Everything is said in setup.cfg; this file keeps the build out of the checkout."""

import atexit
import shutil
import tempfile

from setuptools import setup
from setuptools.command.build import build


class BuildElsewhere(build):
    """Build in a directory of its own.

    setuptools packs all that is in the build directory. In ``build/`` of a checkout that includes modules of an
    earlier version, which this one no longer has: an upgrade would install them again.
    """

    def initialize_options(self):
        super().initialize_options()
        self.build_base = tempfile.mkdtemp(prefix="macvlan-twisted-build-")
        atexit.register(shutil.rmtree, self.build_base, ignore_errors=True)


setup(cmdclass={"build": BuildElsewhere})
