"""How patient a peer machine is. Times in seconds."""

# ours, because a goodbye is worth a lost packet or two and no more
GOODBYE_WAIT = 1.0
# ours, because a rendezvous that is up answers in this time, and two attempts at once would poison each other's NATs
DIRECT_AFTER = 4.0
# ours, because a peer that is there but did not answer may be starting just now
HANDSHAKE_RETRY = 1.0
# ours: more rounds of passing things on than any chain of causes is long; beyond it is a loop, and a bug
SETTLE_ROUNDS = 64
