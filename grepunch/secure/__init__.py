"""Identity, key agreement and key change between two grepunch peers: see PROTOCOL.md."""
