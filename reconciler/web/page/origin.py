"""Whether a form was sent by our own page, and how the cookie of a session looks. Pure.

Three walls stand before a button: the cookie goes with requests of our own pages alone (SameSite=Strict), the
browser says where a request comes from, and each form holds the session's token.
"""

import hmac
from collections.abc import Mapping
from typing import Final

PLAIN_COOKIE: Final = "trueup-session"
SECURE_COOKIE: Final = "__Host-trueup-session"
"""A browser takes this name only from the very host, over https, for all of its paths."""

HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ]
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # With no-referrer a browser says `Origin: null` of our own forms too, where it says nothing else.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer of the page."""


def is_own(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that our own page sent a form; what says nothing at all is no browser.

    Where it says so in Sec-Fetch-Site it has compared the origins itself; over plain http it does not, and
    the host of `Origin` has to be the one that the request is for.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    scheme, mark, origin = headers.get("origin", "").partition("://")
    host = headers.get("host", "")
    return scheme in ("http", "https") and bool(mark and host) and origin.lower() == host.lower()


def is_secure(headers: Mapping[str, str], scheme: str) -> bool:
    """Whether the browser speaks https, be it to a proxy: it says so itself with a form."""
    return (
        scheme == "https"
        or headers.get("x-forwarded-proto", "").lower() == "https"
        or headers.get("origin", "").startswith("https://")
    )


def cookie_header(value: str, *, secure: bool, lasts: float) -> str:
    """`Set-Cookie` of a session; with an empty value it takes the cookie away."""
    name = SECURE_COOKIE if secure else PLAIN_COOKIE
    parts = [f"{name}={value}", "Path=/", "HttpOnly", "SameSite=Strict", f"Max-Age={lasts:.0f}"]
    return "; ".join([*parts, "Secure"] if secure else parts)


def cookie_of(cookies: Mapping[str, str]) -> str:
    return cookies.get(SECURE_COOKIE) or cookies.get(PLAIN_COOKIE) or ""


def same(given: str, expected: str) -> bool:
    """Compared in a time that says nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
