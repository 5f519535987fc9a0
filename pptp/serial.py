"""Serial number arithmetic (RFC 1982): the one place where sequence numbers are compared.

32 bits for GRE sequence numbers (RFC 2637 section 4.1), 12 bits for MPPE coherency counts (RFC 3078).
"""

from __future__ import annotations


def difference(a: int, b: int, bits: int = 32) -> int:
    """Signed distance from ``b`` to ``a`` modulo 2**bits, in [-2**(bits-1), 2**(bits-1))."""
    half = 1 << (bits - 1)
    return ((a - b + half) & ((1 << bits) - 1)) - half


def increment(a: int, by: int = 1, bits: int = 32) -> int:
    """``a`` advanced by ``by`` modulo 2**bits."""
    return (a + by) & ((1 << bits) - 1)
