"""The handshake datagrams: a clear header, a Noise message and MAC1, octet by octet as in PROTOCOL.md.

Message 1 (initiation), message 2 (response) and the cookie reply. What is built here is sent whole through the
rendezvous, and in fragments (``fragments.py``) through the hole. The functions are pure; the state of an
exchange is in ``exchange.py``, the defence against floods in ``admission.py``.

Bad input raises :class:`WireError` where its form is wrong and :class:`DropError` where its contents are.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import field
from enum import IntEnum

from grepunch.secure.constants import (
    COOKIE_SIZE,
    MAC_SIZE,
    MAX_MESSAGE,
    PROLOGUE,
    PROTOCOL_VERSION,
    SESSION_ID_SIZE,
)
from grepunch.secure.derive import cookie_key, mac, mac1_key, probe_secret, traffic_key
from grepunch.secure.identity import Identity
from grepunch.secure.noise import IK_HFS_PSK2, Encapsulate, HandshakeState
from pptp.crypto.aead import Suite
from pptp.errors import Drop, DropError, WireCause, WireError
from pptp.value import value

_HEADER = struct.Struct("!BBHII")  # type, version, zero, sender index, receiver index
_PAYLOAD = struct.Struct(f"!{SESSION_ID_SIZE}sIB")  # session id, capabilities, number of suites
_COOKIE_REPLY_SIZE = _HEADER.size + COOKIE_SIZE + MAC_SIZE
_MAX_SUITES = 8

EntropySource = Callable[[int], bytes]


class MessageType(IntEnum):
    """The first octet of a handshake datagram."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE = 3


@value
class Header:
    """The clear header. ``sender_index`` is 0 in a cookie reply, ``receiver_index`` is 0 in message 1."""

    type: MessageType
    sender_index: int
    receiver_index: int


@value
class Payload:
    """What each message carries encrypted: the suites offered in order of preference, or the one chosen."""

    session_id: bytes
    capabilities: int
    suites: tuple[int, ...]


@value
class OpenedInitiation:
    """A message 1 that decrypted: who sent it and what it says. ``digest`` tells repetitions."""

    peer_public_key: bytes
    sender_index: int
    payload: Payload
    digest: bytes
    state: HandshakeState = field(repr=False)


@value
class Secrets:
    """What a finished handshake yields: traffic keys by who sends under them, and the secret for probes."""

    initiator_key: bytes = field(repr=False)
    responder_key: bytes = field(repr=False)
    probe_secret: bytes = field(repr=False)


def parse_header(datagram: bytes) -> Header:
    """The clear header of a datagram of plausible size; raises :class:`WireError`."""
    if len(datagram) < _COOKIE_REPLY_SIZE:
        raise WireError("handshake", WireCause.TRUNCATED, f"{len(datagram)} octets")
    if len(datagram) > MAX_MESSAGE:
        raise WireError("handshake", WireCause.OVERSIZE, f"{len(datagram)} octets")
    kind, version, zero, sender_index, receiver_index = _HEADER.unpack_from(datagram)
    if kind not in (MessageType.INITIATION, MessageType.RESPONSE, MessageType.COOKIE):
        raise WireError("handshake", WireCause.BAD_TYPE, f"type {kind}")
    if version != PROTOCOL_VERSION:
        raise WireError("handshake", WireCause.BAD_VERSION, f"version {version}")
    if zero:
        raise WireError("handshake", WireCause.BAD_FLAGS, "reserved octets are not zero")
    if (sender_index == 0) is not (kind == MessageType.COOKIE):
        raise WireError("handshake", WireCause.BAD_VALUE, "sender index")
    if (receiver_index == 0) is not (kind == MessageType.INITIATION):
        raise WireError("handshake", WireCause.BAD_VALUE, "receiver index")
    if kind == MessageType.COOKIE and len(datagram) != _COOKIE_REPLY_SIZE:
        raise WireError("cookie reply", WireCause.TRAILING, f"{len(datagram)} octets")
    return Header(MessageType(kind), sender_index, receiver_index)


# -- message 1 ------------------------------------------------------------------------------------------------


def build_initiation(state: HandshakeState, sender_index: int, payload: Payload, entropy: EntropySource) -> bytes:
    """Message 1, with an empty cookie field; ``state`` is fresh and knows the responder's key."""
    header = _HEADER.pack(MessageType.INITIATION, PROTOCOL_VERSION, 0, sender_index, 0)
    state.mix_hash(header)
    message = header + state.write_message(_build_payload(payload), entropy)
    return message + mac(mac1_key(state.remote_static_key), message) + bytes(COOKIE_SIZE)


def with_cookie(initiation: bytes, cookie: bytes) -> bytes:
    """The same message 1 with this cookie: nothing else of it changes."""
    return initiation[:-COOKIE_SIZE] + cookie


def cookie_of(initiation: bytes) -> bytes:
    """The cookie field of message 1; all zero where none was asked for."""
    return initiation[-COOKIE_SIZE:]


def check_initiation(responder_public_key: bytes, datagram: bytes) -> Header:
    """Form and MAC1 of message 1, before any asymmetric work (about 5 microseconds)."""
    header = parse_header(datagram)
    if header.type is not MessageType.INITIATION:
        raise WireError("message 1", WireCause.BAD_TYPE, header.type.name)
    _check_mac1(responder_public_key, datagram[:-COOKIE_SIZE])
    return header


def open_initiation(identity: Identity, datagram: bytes) -> OpenedInitiation:
    """Decrypt a message 1 for ``identity``: two DHs, then the sender is known and authentic (though maybe replayed)."""
    header = check_initiation(identity.public_key, datagram)
    state = HandshakeState(IK_HFS_PSK2, PROLOGUE, identity)
    state.mix_hash(datagram[: _HEADER.size])
    plaintext = state.read_message(datagram[_HEADER.size : -MAC_SIZE - COOKIE_SIZE])
    return OpenedInitiation(
        peer_public_key=state.remote_static_key,
        sender_index=header.sender_index,
        payload=_parse_payload(plaintext),
        digest=hashlib.sha256(datagram[:-COOKIE_SIZE]).digest(),
        state=state,
    )


# -- message 2 ------------------------------------------------------------------------------------------------


def build_response(
    state: HandshakeState,
    sender_index: int,
    receiver_index: int,
    payload: Payload,
    entropy: EntropySource,
    encapsulate: Encapsulate,
) -> bytes:
    """Message 2; ``state`` has read message 1 and has the pre-shared key. It is finished afterwards."""
    header = _HEADER.pack(MessageType.RESPONSE, PROTOCOL_VERSION, 0, sender_index, receiver_index)
    state.mix_hash(header)
    message = header + state.write_message(_build_payload(payload), entropy, encapsulate)
    return message + mac(mac1_key(state.remote_static_key), message)


def open_response(state: HandshakeState, identity: Identity, datagram: bytes) -> tuple[HandshakeState, Payload]:
    """Decrypt message 2 on a copy of ``state``; returns the copy, now finished, and what message 2 says."""
    _check_mac1(identity.public_key, datagram)
    finished = state.copy()
    finished.mix_hash(datagram[: _HEADER.size])
    return finished, _parse_payload(finished.read_message(datagram[_HEADER.size : -MAC_SIZE]))


def derive_secrets(state: HandshakeState, suite: Suite) -> Secrets:
    """The outputs of a finished handshake."""
    initiator_key, responder_key = state.split()
    return Secrets(
        traffic_key(initiator_key, suite),
        traffic_key(responder_key, suite),
        probe_secret(state.chaining_key, state.handshake_hash),
    )


# -- cookie reply ---------------------------------------------------------------------------------------------


def build_cookie_reply(responder_public_key: bytes, initiation: bytes, cookie: bytes) -> bytes:
    """The answer to a message 1 that arrived amid too many: come again with this cookie."""
    reply = _HEADER.pack(MessageType.COOKIE, PROTOCOL_VERSION, 0, 0, parse_header(initiation).sender_index) + cookie
    return reply + mac(cookie_key(responder_public_key), _mac1_of(initiation), reply)


def open_cookie_reply(responder_public_key: bytes, initiation: bytes, reply: bytes) -> bytes:
    """The cookie in the reply to ``initiation``; raises :class:`DropError` where somebody else made it up.

    Who has not seen our message 1 knows neither its MAC1 nor our index.
    """
    body, tag = reply[:-MAC_SIZE], reply[-MAC_SIZE:]
    if not hmac.compare_digest(tag, mac(cookie_key(responder_public_key), _mac1_of(initiation), body)):
        raise DropError(Drop.BAD_TAG, "cookie reply")
    return body[_HEADER.size :]


# -- parts ----------------------------------------------------------------------------------------------------


def _build_payload(payload: Payload) -> bytes:
    return _PAYLOAD.pack(payload.session_id, payload.capabilities, len(payload.suites)) + bytes(payload.suites)


def _parse_payload(data: bytes) -> Payload:
    if len(data) < _PAYLOAD.size:
        raise WireError("handshake payload", WireCause.TRUNCATED, f"{len(data)} octets")
    session_id, capabilities, count = _PAYLOAD.unpack_from(data)
    if not 1 <= count <= _MAX_SUITES or len(data) != _PAYLOAD.size + count:
        raise WireError("handshake payload", WireCause.BAD_LENGTH, f"{count} suites in {len(data)} octets")
    return Payload(session_id, capabilities, tuple(data[_PAYLOAD.size :]))


def _check_mac1(receiver_public_key: bytes, datagram: bytes) -> None:
    body, tag = datagram[:-MAC_SIZE], datagram[-MAC_SIZE:]
    if not hmac.compare_digest(tag, mac(mac1_key(receiver_public_key), body)):
        raise DropError(Drop.BAD_TAG, "MAC1")


def _mac1_of(initiation: bytes) -> bytes:
    return initiation[-MAC_SIZE - COOKIE_SIZE : -COOKIE_SIZE]
