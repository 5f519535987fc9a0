"""NATs, hosts and networks in namespaces of this machine, for the demo, the tests and the benchmark."""
