"""Addresses of remote folders: of what lies in them, and in the form that may be shown, without credentials."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from shards.errors import SettingsError

HTTP_SCHEMES = ("http", "https")
HIDDEN = "***"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# USER:PASSWORD@HOST:PORT
_AUTHORITY = re.compile(r"(?:[^@]*@)?(?:\[[0-9A-Fa-f:.]+\]|[^\s:@\[\]]+)(?::(?P<port>\d{1,5}))?")
_MOST_PORT = 65535
# In a message: a password may hold a slash, and what follows the colon of a port is a digit.
_ADDRESS = re.compile(
    r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2})(?P<user>[^\s/@]+@|[^\s/@:]*:[^\s@\d][^\s@]*@)?"
    r"(?P<rest>[^\s?'\"]*)(?P<query>\?[^\s'\"]*?(?=[:;,)\]]*(?:[\s'\"]|$)))?"
)
# All of ASCII that may be in a path or a query, % included.
_SENT = "".join(map(chr, range(0x21, 0x7F)))


def is_url(text: str) -> bool:
    """Whether a text is an address, not a path."""
    return _URL.match(text) is not None


def check_url(url: str) -> None:
    """Refuse an HTTP address that no server can be asked for; all others are left to their packages.

    Raises:
        SettingsError: host or port are none, or it holds spaces or characters that cannot be sent.
    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in HTTP_SCHEMES:
        return
    match = _AUTHORITY.fullmatch(_take_authority(rest))
    try:
        (urlsplit(url).hostname or "").encode("idna")
        sound = url.isprintable() and " " not in url and match and int(match["port"] or 0) <= _MOST_PORT
    except ValueError:
        sound = None
    if not sound:
        shown = redact_url(url).encode(errors="backslashreplace").decode()
        what = f"{shown} is no address: expected https://HOST/FOLDER or https://HOST:PORT/FOLDER"
        raise SettingsError(f"{what}; write a space as %20, and in a password / as %2F, ? as %3F, # as %23, @ as %40")


def _take_authority(rest: str) -> str:
    """What stands between :// and the path."""
    return re.split("[/?#]", rest, maxsplit=1)[0]


def join_url(url: str, name: str) -> str:
    """The address of a file below a folder; a query, such as a signature, is kept."""
    if urlsplit(url).scheme.lower() not in HTTP_SCHEMES:
        return f"{url.rstrip('/')}/{name}"
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}", fragment=""))


def normalize_url(url: str) -> str:
    """What two addresses of the same folder have in common: no credentials, no slash at the end, a small host."""
    if urlsplit(url).scheme.lower() not in HTTP_SCHEMES:
        return url.rstrip("/")
    parts = urlsplit(split_credentials(url)[0])
    return urlunsplit(parts._replace(netloc=parts.netloc.lower(), path=parts.path.rstrip("/")))


def name_remote(url: str) -> str:
    """A name for what is made from an address: its last part, without credentials and query."""
    return redact_url(url).partition("?")[0].rstrip("/").rpartition("/")[2].removeprefix(f"{HIDDEN}@")


def redact_url(url: str) -> str:
    """An address without user name, password and the values of its query, to be shown and written."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() in HTTP_SCHEMES and "@" in rest and not _AUTHORITY.fullmatch(_take_authority(rest)):
        # The password holds a character that ends a host.
        rest = f"{HIDDEN}@{rest.rpartition('@')[2]}"
    rest, _, fragment = rest.partition("#")
    rest, question, _ = rest.partition("?")
    host, slash, path = rest.partition("/")
    # An object store's revision, hf://datasets/USER/REPO@REVISION, is in the path.
    host = f"{HIDDEN}@{host.rpartition('@')[2]}" if "@" in host else host
    return f"{scheme}://{host}{slash}{path}" + (f"?{HIDDEN}" if question else "") + ("#" + HIDDEN if fragment else "")


def redact_text(text: str, url: str) -> str:
    """A library's message on one line, without the credentials of an address."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    secrets = {parts.query, user, *user.split(":", 1)[1:], *(value for _, value in parse_qsl(parts.query))}
    text = " ".join(text.split()).replace(url, redact_url(url))
    for secret in sorted(secrets | {unquote(secret) for secret in secrets}, key=len, reverse=True):
        # Shorter ones are parts of words.
        if len(secret) > 3:
            text = text.replace(secret, HIDDEN)
    return text


def escape_url(url: str) -> str:
    """An HTTP address whose path and query are sent as they are, but for letters that HTTP does not know."""
    parts = urlsplit(url)
    path, query = (quote(part, safe=_SENT) for part in (parts.path, parts.query))
    return urlunsplit(parts._replace(path=path, query=query))


def redact_addresses(text: str) -> str:
    """A message without user names, passwords and queries of the addresses that it names.

    Also of those that were taken for paths, which have one slash behind the scheme.
    """
    return _ADDRESS.sub(_redact_address, text)


def _redact_address(match: re.Match[str]) -> str:
    user, query = f"{HIDDEN}@" if match["user"] else "", f"?{HIDDEN}" if match["query"] else ""
    return f"{match['scheme']}{user}{match['rest']}{query}"


def split_credentials(url: str) -> tuple[str, str]:
    """An HTTP address without its user name and password, and these as USER:PASSWORD; empty if it has none."""
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host, fragment="")), unquote(credentials)
