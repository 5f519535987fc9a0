"""The Point-to-Point Protocol (RFC 1661) and its network control protocols."""
