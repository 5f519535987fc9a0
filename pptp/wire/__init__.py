"""Codecs: bytes to frozen values and back, strict and total."""
