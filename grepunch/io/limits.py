"""How many descriptors this process may have open."""

from __future__ import annotations

import resource


def raise_descriptor_limit(needed: int) -> int:
    """See to it that ``needed`` descriptors may be open, as far as the hard limit goes; what the limit is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return max(soft, needed)
    wanted = needed if hard == unlimited else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
