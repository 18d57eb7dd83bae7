State that was lost, damaged or put back older is noticed before anything is done with it, also when the whole directory
is concerned. With ``--recover`` networks, endpoints, pools and leases are rebuilt from what the engine and the kernel
know, and containers go on.
