"""What a profile means for the calls of ordinary PPTP: policy enters here, once."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from grepunch.config import Profile
from grepunch.config.legacy import AuthMethod, MppeModes, MppePolicy, Weakness
from grepunch.verdict import VerdictKind, failure
from pptp.crypto.legacy import LegacyCipherUnavailable
from pptp.crypto.mppe import MppeMode
from pptp.crypto.mppe_keys import Strength
from pptp.mtu import LARGEST_OUTER, ordinary_mtu
from pptp.ordinary import CallTerms, OrdinaryConfig
from pptp.ppp.auth import Authenticatee, Authenticator
from pptp.ppp.ccp import CcpPolicy
from pptp.ppp.chap import ChapMd5Authenticatee, ChapMd5Authenticator
from pptp.ppp.credentials import Credential, Lookup, Users
from pptp.ppp.mschapv2 import MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.ppp.pap import PapAuthenticatee, PapAuthenticator

# ours, because Windows asks for it, everybody takes it, and its frames fit where little is lost on the way
ORDINARY_MRU = 1400

_STRENGTHS = {
    Weakness.MPPE128: Strength.BITS_128,
    Weakness.MPPE56: Strength.BITS_56,
    Weakness.MPPE40: Strength.BITS_40,
}
_UNIVERSAL_BIT = 0x02


def methods(profile: Profile) -> tuple[AuthMethod, ...]:
    """The ways of authentication, the best first."""
    return profile.auth.methods or profile.legacy.methods


def device_mtu(profile: Profile) -> int:
    """The MTU of the device for calls: the profile's, or what fits a peer that wants no more than ORDINARY_MRU."""
    if profile.interface.mtu is not None and not profile.peers:
        return profile.interface.mtu
    return ordinary_mtu(LARGEST_OUTER, ORDINARY_MRU, mppe=profile.legacy.policy is not MppePolicy.REFUSE)


def own_address(profile: Profile) -> IPv4Interface:
    """The server's address inside the tunnel, with its prefix: the profile's, or the first one of the pool."""
    interface = profile.interface
    if interface.pool is None:
        raise ValueError("a server without a pool")
    if interface.address is not None and not profile.peers:
        return interface.address
    return IPv4Interface((next(interface.pool.hosts()), interface.pool.prefixlen))


def device_name(profile: Profile) -> str:
    """The device for calls: the profile's, or one beside that of the punched peers."""
    if not profile.peers:
        return profile.interface.name
    chosen = profile.listen.interface if profile.listen is not None else None
    return chosen or f"{profile.interface.name[:10]}-pptp"


def serving_terms(
    profile: Profile, lookup: Lookup, interface_identifier: bytes, *, ipv6: bool = True
) -> OrdinaryConfig:
    """For every client. Raises :class:`Failure` where this machine has no RC4 and the profile wants it."""
    users = Users(lookup)
    make: dict[AuthMethod, Authenticator] = {
        AuthMethod.MSCHAPV2: MsChapV2Authenticator(users),
        AuthMethod.CHAP: ChapMd5Authenticator(users),
        AuthMethod.PAP: PapAuthenticator(users),
    }
    terms = CallTerms(
        authenticators=tuple(make[method] for method in methods(profile)),
        mppe=_mppe(profile),
        mru=_mru(profile),
        ipv6=ipv6,
        interface_identifier=interface_identifier,
    )
    return OrdinaryConfig(dials=False, terms=terms)


def dialling_terms(profile: Profile, password: str, *, ipv6: bool = True) -> OrdinaryConfig:
    """For the server that is dialled. Raises :class:`Failure` as :func:`serving_terms` does."""
    user = profile.auth.user or ""
    make: dict[AuthMethod, Authenticatee] = {
        AuthMethod.MSCHAPV2: MsChapV2Authenticatee(user, Credential.of_password(password)),
        AuthMethod.CHAP: ChapMd5Authenticatee(user, password),
        AuthMethod.PAP: PapAuthenticatee(user, password),
    }
    address = profile.interface.address
    terms = CallTerms(
        authenticatees=tuple(make[method] for method in methods(profile)),
        mppe=_mppe(profile),
        mru=_mru(profile),
        ipv6=ipv6,
        address=address.ip if address is not None else None,
    )
    return OrdinaryConfig(dials=True, terms=terms)


def _mru(profile: Profile) -> int:
    return max(ORDINARY_MRU, device_mtu(profile))


def _mppe(profile: Profile) -> CcpPolicy | None:
    legacy = profile.legacy
    if legacy.policy is MppePolicy.REFUSE:
        return None
    try:
        return CcpPolicy(
            required=legacy.policy is MppePolicy.REQUIRE,
            strengths=frozenset(_STRENGTHS[strength] for strength in legacy.strengths),
            stateless=legacy.modes is not MppeModes.STATEFUL,
            stateful=legacy.modes is not MppeModes.STATELESS,
        )
    except LegacyCipherUnavailable as error:
        raise failure(VerdictKind.UNSUPPORTED_HOST, str(error)) from None


def encryption_word(send: MppeMode | None, receive: MppeMode | None) -> str:
    """How a call is encrypted, in a word for status and events: ``mppe128 stateless``, ``none``, or both directions."""
    words = [_word(mode) for mode in (send, receive)]
    return words[0] if words[0] == words[1] else f"{words[0]} out, {words[1]} in"


def _word(mode: MppeMode | None) -> str:
    return f"mppe{int(mode.strength)} {'stateless' if mode.stateless else 'stateful'}" if mode is not None else "none"


def random_identifier(octets: bytes) -> bytes:
    """An IPv6 interface identifier of 8 random octets: locally administered, and not zero (RFC 5072 section 4.1)."""
    return bytes([octets[0] & ~_UNIVERSAL_BIT]) + octets[1:7] + bytes([octets[7] or 1])


def warning(profile: Profile) -> str:
    """What is said at every start, and shown in status."""
    allowed = ", ".join(str(weakness) for weakness in profile.legacy.allow)
    return (
        f"ordinary PPTP is allowed ({allowed}; MPPE: {profile.legacy.policy}): whoever sees the packets can read them "
        "within a day, and knows the password's hash"
    )


def link_local(identifier: bytes) -> bytes:
    """The link-local address with an interface identifier, 16 octets."""
    return b"\xfe\x80" + bytes(6) + identifier


def is_unset(address: IPv4Address) -> bool:
    """Whether IPCP has left an address open."""
    return int(address) == 0
