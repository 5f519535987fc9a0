"""What a cell of the matrix agrees on: an authentication and an encryption, in each side's own words."""

from __future__ import annotations

import re
from dataclasses import dataclass

USER, PASSWORD = "vpnuser", "s3cret PW"

_AUTHENTICATIONS = ("eap", "pap", "chap", "mschap", "mschap-v2")  # pppd's names for what it may refuse
_PPPD_NAME = {"pap": "pap", "chap": "chap", "mschapv2": "mschap-v2"}
# what pppd writes of a Configure-Request for it
_REQUESTED = {"pap": "<auth pap>", "chap": "<auth chap MD5>", "mschapv2": "<auth chap MS-v2>"}


@dataclass(frozen=True, slots=True)
class Kind:
    """``authentication`` and ``strength`` as a profile has them; ``strength`` 0 is no encryption."""

    authentication: str
    strength: int = 0
    stateful: bool = False

    @property
    def encryption(self) -> str:
        """The encryption in the words of the product's events."""
        if not self.strength:
            return "none"
        return f"mppe{self.strength} {'stateful' if self.stateful else 'stateless'}"

    @property
    def pppd_encryption(self) -> str:
        """The line with which pppd tells that this encryption has begun, after ``MPPE ``."""
        return f"{self.strength}-bit {'stateful' if self.stateful else 'stateless'} compression enabled"

    def profile_sections(self) -> str:
        """``[legacy]`` of a profile of ours."""
        allow = [self.authentication, f"mppe{self.strength}" if self.strength else "cleartext"]
        mode = []
        if self.stateful:
            allow.append("stateful")
            mode = ['mppe_mode = "stateful"']
        return "\n".join(["[legacy]", f"allow = {allow!r}".replace("'", '"'), *mode])

    def pppd_client_options(self) -> list[str]:
        """pppd answers this authentication alone, and wants this encryption."""
        refused = [name for name in _AUTHENTICATIONS if name != _PPPD_NAME[self.authentication]]
        return [*(f"refuse-{name}" for name in refused), *self._pppd_encryption_options()]

    def pppd_server_options(self) -> list[str]:
        """pppd asks for this authentication, and wants this encryption."""
        return [f"require-{_PPPD_NAME[self.authentication]}", *self._pppd_encryption_options()]

    def _pppd_encryption_options(self) -> list[str]:
        if not self.strength:
            return ["nomppe"]
        return [f"require-mppe-{self.strength}", *(["mppe-stateful"] if self.stateful else [])]

    def deviations(self, log: str) -> list[str]:
        """What a pppd's debug log of a link that is up has otherwise than this, in words."""
        found = []
        if _REQUESTED[self.authentication] not in log:
            found.append(f"pppd's log has no {_REQUESTED[self.authentication]}")
        begun = re.findall(r"^.*MPPE (\d+-bit state\w+ compression enabled)", log, re.MULTILINE)
        if set(begun) != ({self.pppd_encryption} if self.strength else set()):
            found.append(f"pppd says {begun or 'nothing of MPPE'}")
        return found


KINDS = (
    Kind("pap"),
    Kind("chap"),
    Kind("mschapv2"),
    Kind("mschapv2", 128),
    Kind("mschapv2", 128, stateful=True),
    Kind("mschapv2", 40),
)
