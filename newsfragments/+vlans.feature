VLANs, also VLANs within VLANs, are made when a network names them and removed with the last network that uses them. Internal networks get a dummy link of their own.
