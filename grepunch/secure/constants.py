"""The whole protocol's constants on one screen; what they mean is in PROTOCOL.md beside this file.

Times are seconds, sizes are octets.
"""

from __future__ import annotations

# Noise Protocol Framework revision 34, section 12; FIPS 203 (ML-KEM-768); RFC 7748 (X25519)
KEY_SIZE = 32  # X25519 keys and shared secrets, chaining keys, AEAD keys, pre-shared keys
KEM_SEED_SIZE = 64
KEM_PUBLIC_KEY_SIZE = 1184
KEM_CIPHERTEXT_SIZE = 1088

# ours: what is mixed into every handshake
PROLOGUE = b"grepunch-pptp/1"
PROTOCOL_VERSION = 1

# ours: sizes of the fields Noise does not know
SESSION_ID_SIZE = 8
MAC_SIZE = 16
COOKIE_SIZE = 16
FRAGMENT_ID_SIZE = 8

# ours: WireGuard's rhythm, which has carried lossy paths for years
REKEY_INITIATOR = 120.0  # who initiated the live keys renews them at this age
REKEY_RESPONDER = 140.0  # the other side only where the first could not
KEY_LIFETIME = 180.0
REKEY_FRAMES = 1 << 26  # far below what AES-GCM bears (2**32 random nonces; ours are counters)
FRAME_CHECK_INTERVAL = 10.0  # how often the number of frames is looked at: 2**26 take minutes
REKEY_RETRY = 5.0  # after a failed renewal

# ours: an attempt is 6 identical messages over 9.5 s, so that it ends before the responder's memory of it does
RETRANSMIT_DELAYS = (0.5, 1.0, 2.0, 2.0, 2.0, 2.0)  # after each sending; the last wait ends the attempt
CONFIRM_INTERVAL = 0.25
CONFIRM_ANSWERS = 5  # empty frames of the responder, who cannot know which of them arrived
CONFIRM_TIMEOUT = 5.0  # 20 confirmations without an answer: the new keys are not in use at the peer
YIELD_TIME = 2.0  # how long one's own attempt waits for the peer's to finish; then it goes on
PENDING_LIFETIME = 10.0  # an unconfirmed handshake, and message 2 for repetitions of its message 1
# per peer; one more pushes the oldest out, so that replays cannot lock the peer out. 50 a second are answered, so a
# genuine one stays for longer than a round trip takes.
MAX_PENDING = 16
MAX_SPENT = 256  # messages 1 remembered as over, per peer: an honest peer repeats one for 9.5 s and never again
MAX_PREVIOUS = 3  # older key pairs that still receive

# ours: floods
HANDSHAKES_PER_SECOND = 50.0  # without a cookie, over all sources
COOKIED_PER_SECOND = 80.0  # with a valid cookie, over all sources: 130 a second of 0.7 ms are a tenth of one core
SOURCE_PER_SECOND = 10.0  # of one source with a cookie: a carrier's NAT may hide many peers
SOURCE_BURST = 20.0
MAX_SOURCES = 1024  # remembered; beyond, the one heard least recently is forgotten
COOKIE_ROTATION = 120.0  # a cookie is good for one to two of these

# ours: fragments pass a path of 1000 with IPv4, GRE and the LCP envelope around them
FRAGMENT_DATA = 900
MAX_MESSAGE = 2 * FRAGMENT_DATA
REASSEMBLY_SLOTS = 4  # per source
REASSEMBLY_SOURCES = 256  # 4 * 256 slots of 900 octets: below 1 MB in all
REASSEMBLY_TIME = 3.0
