"""What the loop needs of the peers whose packets it moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Protocol

from grepunch.ports import Form, Way
from pptp.datapath import SealedPair
from pptp.errors import Drop

Place = tuple[IPv4Address, Form]
Carrier = Place | Way


class Relay(Protocol):
    """What is known of the relay towards a peer."""

    @property
    def takes(self) -> bool:
        """Whether frames of the peer are taken from it."""

    def heard(self, now: float) -> None:
        """An authentic frame came out of it."""


class Machine(Protocol):
    """A peer's state machine, as far as data goes."""

    @property
    def networks(self) -> frozenset[int]:
        """The network protocols that are open."""

    @property
    def carrier(self) -> Carrier | None:
        """Where data goes; None while there is no way. The same object as long as it stays the same place."""

    @property
    def relay(self) -> Relay:
        """What is known of the relay."""

    @property
    def sending_pair(self) -> SealedPair | None:
        """The keys to seal with."""

    def settled_on(self, pair: SealedPair, source: Carrier) -> bool:
        """Whether a frame under ``pair`` from ``source`` tells nothing new about keys or paths."""

    def receive_opened(self, pair: SealedPair, protocol: int, data: bytes, source: Carrier, now: float) -> bool:
        """What a sealed frame held that is not data, or with no ``data`` that data came; False: drop the frame."""

    def heard(self, now: float) -> None:
        """Data came from the hole (once per batch)."""

    def sent(self, now: float, largest: int) -> None:
        """Data went into the hole (once per batch); ``largest`` outer packet in octets."""


class Traffic(Protocol):
    """One peer, with its counters of inner traffic."""

    name: str
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    touched: bool
    heard: bool
    largest: int
    tap: Callable[[int, bytes, bool], None] | None
    drops: Counter[Drop]

    @property
    def machine(self) -> Machine:
        """Its state machine."""


class Device(Protocol):
    """The TUN device with offload (:class:`grepunch.io.tun.OffloadTun`)."""

    @property
    def udp(self) -> bool:
        """Whether it takes trains of UDP datagrams."""

    def read_into(self, buffer: bytearray) -> int:
        """The next header and packet, or train; its size, 0 when there are no more."""

    def write(self, parts: Sequence[memoryview]) -> bool:
        """Hand the kernel a header with its packet or train; False when it did not take it."""
