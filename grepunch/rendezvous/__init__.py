"""Meeting: mailboxes on a small server that both peers can reach."""
