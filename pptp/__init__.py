"""PPTP, PPP and enhanced GRE as a pure protocol library: no sockets, no clock, no entropy. See ``machine.py``."""
