"""SCRAM users: credentials in memory and in the store, and who must be told when one changes."""

from collections.abc import Callable, Collection, Mapping

from tailrace.security.scram import Credential, Mechanism, Shape, credential, matches, pretended
from tailrace.security.secrets import Secret
from tailrace.security.store import SecurityStore

OnChange = Callable[[Collection[tuple[str, Mechanism]]], None]


class Users:
    """The credentials of one broker; `on_change` is called with what was changed or removed, after it is durable.

    Raises StoreError when a change cannot be written.
    """

    def __init__(self, store: SecurityStore) -> None:
        self._store = store
        self._known = store.credentials()
        self._pretend_key = store.pretend_key()
        self._shapes = self._seen_shapes()
        self.on_change: OnChange = lambda changed: None

    def find(self, name: str, mechanism: Mechanism) -> Credential | None:
        """The credential, if the user has one for the mechanism."""
        return self._known.get((name, mechanism))

    def pretended(self, name: str, mechanism: Mechanism) -> Credential:
        """The credential that a user who has none is asked with, the same at each attempt and after a restart."""
        return pretended(mechanism, name, self._pretend_key, self._shapes[mechanism])

    def any_of(self, name: str) -> tuple[Mechanism, Credential] | None:
        """A credential of the user to check a password against, the stronger first."""
        for mechanism in (Mechanism.SHA_512, Mechanism.SHA_256):
            found = self._known.get((name, mechanism))
            if found is not None:
                return mechanism, found
        return None

    def names(self) -> list[str]:
        """Everybody who has a credential."""
        return sorted({name for name, _ in self._known})

    def of(self, name: str) -> list[tuple[Mechanism, Credential]]:
        """All credentials of a user."""
        return [(m, self._known[name, m]) for m in Mechanism if (name, m) in self._known]

    def alter(self, changes: Mapping[tuple[str, Mechanism], Credential | None]) -> None:
        """Set credentials, or remove those that are None."""
        self._store.change_credentials(changes)
        for key, made in changes.items():
            if made is None:
                self._known.pop(key, None)
            else:
                self._known[key] = made
        self._shapes = self._seen_shapes()
        self.on_change(changes.keys())

    def set_passwords(self, passwords: Mapping[str, Secret]) -> None:
        """Make sure that these users have these passwords, for both mechanisms (PBKDF2: call it in a thread)."""
        changes: dict[tuple[str, Mechanism], Credential | None] = {}
        for name, password in passwords.items():
            for mechanism in Mechanism:
                known = self.find(name, mechanism)
                if known is None or not matches(mechanism, password, known):
                    changes[name, mechanism] = credential(mechanism, password)
        if changes:
            self.alter(changes)

    def _seen_shapes(self) -> dict[Mechanism, list[Shape]]:
        seen: dict[Mechanism, set[Shape]] = {mechanism: set() for mechanism in Mechanism}
        for (_, mechanism), known in self._known.items():
            seen[mechanism].add((known.iterations, len(known.salt)))
        return {mechanism: sorted(shapes) for mechanism, shapes in seen.items()}
