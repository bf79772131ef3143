"""A primary's address as people write it: `primary.example:9001` or `[2001:db8::1]:9001`."""

from dataclasses import dataclass

from agent.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """SettingsError unless it is HOST:PORT with a port from 1 to 65535."""
        host, colon, port = text.strip().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        plain = host and not any(c.isspace() or c in "[]/@" for c in host)
        number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
        if not colon or not plain or (":" in host) != bracketed or not 1 <= number <= 65535:
            raise SettingsError(f"{text!r} is not HOST:PORT, such as primary.example:9001")
        return cls(host, number)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
