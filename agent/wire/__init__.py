"""The wire protocol: frames, messages and the legal order of both. Pure: bytes in, messages out."""
