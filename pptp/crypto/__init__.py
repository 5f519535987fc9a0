"""Ciphers and windows of the data path."""
