"""Ordinary PPTP: clients that dial in over TCP 1723, and a server that is dialled; what the world already has."""
