"""Other engines that run our potentials. Each interface loads its engine, and torch, only when it is used."""
