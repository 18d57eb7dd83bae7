Docker Engine 20.10 to 29 are supported; 20.10, 26.1 and 28.5 are tested as real engines.
