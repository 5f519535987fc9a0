"""The engine: both directions of the fast data path, with the same face as :class:`grepunch.datapump.DataPump`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from grepunch.io.engine.backlog import Backlog
from grepunch.io.engine.batches import GreBatches
from grepunch.io.engine.inbound import Inbound
from grepunch.io.engine.outbound import Outbound
from grepunch.io.engine.ports import Device, Traffic
from grepunch.io.engine.relayed import Relayed
from grepunch.ports import GreFrame
from pptp.datapath import SealedPair
from pptp.errors import Drop

TrafficT = TypeVar("TrafficT", bound=Traffic)


class Engine(Generic[TrafficT]):
    """Moves packets between one TUN device with offload, one raw GRE socket and any number of peers."""

    def __init__(
        self,
        batches: GreBatches,
        device: Device,
        *,
        owner_of: Callable[[bytes], TrafficT | None],
        refusal: Callable[[TrafficT, int, memoryview], Drop | None],
        find_pair: Callable[[int], tuple[TrafficT, SealedPair] | None],
        clear_frame: Callable[[GreFrame], None],
        relay: Callable[[TrafficT, bytes], bool],
        moved: Callable[[TrafficT], None],
        settled: Callable[[TrafficT], None],
        news: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        """``owner_of`` says whose an inner destination is, ``refusal`` why a peer's packet is not let in; ``find_pair``
        gives peer and keys of a receiver index; ``clear_frame`` takes what is not sealed; ``relay`` has a frame
        relayed. After a batch ``settled`` is called for each peer whose machine may have something to send at once, and
        ``news`` when the network may have said something about packets of ours (ICMP); at the end of a wake-up
        ``moved`` for each peer whose data only moved."""
        self.drops: Counter[Drop] = Counter()
        self._backlog = Backlog()
        self._outbound = Outbound(batches, device, owner_of, relay, self.drops, self._backlog)
        self._inbound = Inbound(
            batches,
            device,
            find_pair=find_pair,
            clear_frame=clear_frame,
            refusal=refusal,
            settled=settled,
            news=news,
            now=now,
            drops=self.drops,
        )
        self._relayed = Relayed(device, find_pair=find_pair, refusal=refusal, now=now, drops=self.drops)
        self._moved = moved
        self._settled = settled
        self._now = now

    def fileno(self) -> int:
        """Readable while something is taken off the device and not sent yet: then too call :meth:`tun_readable`."""
        return self._backlog.fileno()

    def close(self) -> None:
        """Close the descriptor; harmless when it is closed."""
        self._backlog.close()

    @property
    def tun_readable(self) -> Callable[[], None]:
        """Seal and send what the kernel has for the tunnel."""
        return self._outbound.run

    @property
    def gre_readable(self) -> Callable[[], None]:
        """Open what has arrived: data to the kernel, everything else to the peer machines."""
        return self._inbound.run

    def pause(self) -> None:
        """There is nothing more to take at the moment: what comes next may be single."""
        self._outbound.pause()
        self._inbound.pause()

    def review(self) -> None:
        """To be called whenever a peer's machine was: is where packets go, and what they are taken for, still so?"""
        self._outbound.review()
        self._inbound.review()

    def settle(self) -> None:
        """The end of a wake-up: tell the peer machines what data has moved. To be called after every one."""
        sent, heard = self._outbound.take_touched(), self._inbound.take_touched()
        now = self._now()
        for traffic in sent:
            traffic.machine.sent(now, traffic.largest)
            traffic.largest = 0
            self._moved(traffic)
        for traffic in heard:
            if traffic.heard:
                traffic.machine.heard(now)
                self._moved(traffic)
            traffic.touched = traffic.heard = False

    def relayed(self, traffic: TrafficT, frame: bytes) -> None:
        """Open a frame that came over the relay, in the mailbox of this peer."""
        if self._relayed.take(traffic, frame):
            self._settled(traffic)
