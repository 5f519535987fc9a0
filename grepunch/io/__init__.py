"""System calls without policy: sockets, TUN devices, addresses and routes, captures, drivers."""
