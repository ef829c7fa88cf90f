"""Principals: `User:alice`, and how a certificate's distinguished name becomes one.

Source: org.apache.kafka.common.security.auth.KafkaPrincipal, SslPrincipalMapper (ssl.principal.mapping.rules).
"""

import re
from dataclasses import dataclass

from tailrace.changes.errors import ConfigError

USER = "User"
_RULE = re.compile(r"\s*(?:(DEFAULT)|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?))\s*")
_JAVA_GROUP = re.compile(r"\$(\d)")


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody; `str()` is the form that ACLs and `super.users` name."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> "Principal":
        """Read `Type:name`; the name may hold colons.  Raises ValueError."""
        kind, colon, name = text.partition(":")
        if not colon or not kind or not name:
            raise ValueError(f"{text!r} is no principal: it has the form User:name")
        return cls(kind, name)


ANONYMOUS = Principal(USER, "ANONYMOUS")
"""Everybody on a listener that does not authenticate."""


def user(name: str) -> Principal:
    """The principal of a user name."""
    return Principal(USER, name)


def parse_super_users(text: str) -> frozenset[str]:
    """Read `User:a;User:CN=b,O=c`, separated by semicolons since names of certificates hold commas."""
    try:
        return frozenset(str(Principal.parse(item.strip())) for item in text.split(";") if item.strip())
    except ValueError as error:
        raise ConfigError(
            f"the broker's option super.users: {error}", fix="separate principals by semicolons"
        ) from None


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str] | None  # None: DEFAULT, the name as it is
    replacement: str
    case: str


class NameRules:
    """`ssl.principal.mapping.rules`: the first rule whose pattern matches the WHOLE name gives the user.

    A rule is `RULE:pattern/replacement/[LU]` with `$1` for groups, or `DEFAULT`.  A pattern that matched only
    a part would let `CN=admin` inside another field pass for the administrator, so a part never counts.
    Raises ConfigError for rules that cannot be read.
    """

    def __init__(self, text: str) -> None:
        self._rules: list[_Rule] = []
        at = 0
        while at < len(text):
            found = _RULE.match(text, at)
            if found is None:
                raise ConfigError(
                    f"the broker's option ssl.principal.mapping.rules cannot be read from {text[at:]!r} on",
                    fix="write DEFAULT, or RULE:pattern/replacement/ with an optional L or U behind it",
                )
            self._rules.append(_rule(found))
            at = found.end()
            if at < len(text) and text[at] != ",":
                raise ConfigError(
                    f"the broker's option ssl.principal.mapping.rules has no comma before {text[at:]!r}"
                )
            at += 1

    def user(self, distinguished_name: str) -> str | None:
        """The user of a certificate; None when no rule applies, which refuses the connection."""
        for rule in self._rules:
            if rule.pattern is None:
                return distinguished_name
            found = rule.pattern.fullmatch(distinguished_name)
            if found is not None:
                name = found.expand(rule.replacement)
                return name.lower() if rule.case == "L" else name.upper() if rule.case == "U" else name
        return None


def _rule(found: re.Match[str]) -> _Rule:
    default, pattern, replacement, case = found.groups()
    if default:
        return _Rule(None, "", "")
    try:
        compiled = re.compile(pattern.replace("\\/", "/"))
        template = _JAVA_GROUP.sub(r"\\g<\1>", replacement.replace("\\", "\\\\"))
        if any(int(group) > compiled.groups for group in _JAVA_GROUP.findall(replacement)):
            raise ValueError("it names a group that its pattern does not have")
    except (re.error, ValueError) as error:
        raise ConfigError(
            f"the broker's option ssl.principal.mapping.rules: the rule {pattern!r} is wrong: {error}"
        ) from None
    return _Rule(compiled, template, case)
