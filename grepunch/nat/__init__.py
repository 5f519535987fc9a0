"""GRE STUN: what the NATs between this host and a public server do with GRE, asked packet by packet."""
