"""Docker's plugin protocol over HTTP: site, Klein routes, JSON messages and the error table."""
