"""The demo's database: two tables, their first rows, and a live load with every kind of change."""

import threading
import time
from dataclasses import dataclass, field

import psycopg

_TABLES = """
CREATE TABLE public.customers (
  id          bigint PRIMARY KEY,
  name        text NOT NULL,
  country     char(2),
  email       text,
  tier        text,
  credit      numeric(12,2),
  active      boolean NOT NULL DEFAULT true,
  profile     jsonb,
  created_at  timestamptz NOT NULL
);
CREATE TABLE public.transactions (
  id          bigint PRIMARY KEY,
  customer_id bigint NOT NULL,
  amount      numeric(12,2) NOT NULL,
  currency    char(3) NOT NULL,
  merchant    text,
  is_online   boolean NOT NULL,
  reference   uuid NOT NULL,
  details     jsonb,
  note        text,
  created_at  timestamptz NOT NULL
);
"""

_CUSTOMERS = """
INSERT INTO public.customers
SELECT i, 'Customer ' || i, (ARRAY['DE','US','FR','JP','BR'])[1 + i %% 5],
       CASE WHEN i %% 7 = 0 THEN NULL ELSE 'customer' || i || '@example.com' END,
       (ARRAY['basic','silver','gold'])[1 + i %% 3], (i * 37 %% 1000000)::numeric / 100, i %% 11 <> 0,
       jsonb_build_object('visits', i %% 100, 'tags', jsonb_build_array('a', i %% 5)),
       timestamptz '2026-01-01' + i * interval '1 minute'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) i
"""

_TRANSACTIONS = """
INSERT INTO public.transactions (id, customer_id, amount, currency, merchant, is_online, reference, details, note,
                                 created_at)
SELECT i, 1 + i * 31 %% %(customers)s, ((i * 7919) %% 100000000)::numeric / 100,
       (ARRAY['EUR','USD','GBP','JPY'])[1 + i %% 4], 'merchant-' || (i %% 50000), i %% 3 = 0, md5(i::text)::uuid,
       CASE WHEN i %% 4 = 0 THEN NULL ELSE jsonb_build_object('channel', i %% 6, 'items', i %% 9) END,
       CASE WHEN i %% 1000 = 0 THEN (SELECT string_agg(md5(i::text || k), '') FROM generate_series(1, 300) k)
            WHEN i %% 5 = 0 THEN NULL ELSE 'note ' || md5(i::text) END,
       clock_timestamp()
FROM generate_series(%(first)s::bigint, %(last)s::bigint) i
"""


@dataclass(slots=True)
class LoadCounts:
    """Row changes committed by the load, per table."""

    changes: dict[str, int] = field(default_factory=lambda: {"customers": 0, "transactions": 0})
    transactions: int = 0
    rolled_back: int = 0


def create_shop(dsn: str, rows: int) -> int:
    """Make the tables with `rows` transactions and one customer per fifty of them; return the customers."""
    customers = max(rows // 50, 10)
    with psycopg.connect(dsn) as connection:
        connection.execute(_TABLES)
        connection.execute(_CUSTOMERS, {"first": 1, "last": customers})
        connection.execute(_TRANSACTIONS, {"first": 1, "last": rows, "customers": customers})
    return customers


class Load(threading.Thread):
    """Commits small transactions at about `rate` changes a second for `seconds`, then ends.

    Every kind of change: inserts, updates (some leave a TOASTed value unchanged), deletes, a key change,
    a rolled-back transaction, and once, after `column_after_s`, a column added.
    """

    def __init__(
        self,
        dsn: str,
        rows: int,
        customers: int,
        *,
        seconds: float,
        column_after_s: float,
        rate: int = 1000,
    ) -> None:
        super().__init__(name="load", daemon=True)
        self.counts = LoadCounts()
        self.error: BaseException | None = None
        self.elapsed_s = 0.0
        self._dsn, self._rows, self._customers = dsn, rows, customers
        self.planned_s, self._rate = seconds, rate
        self._column_after_s = column_after_s
        self._next_id = rows + 1
        self._over = threading.Event()

    @property
    def total(self) -> int:
        """Changes committed so far."""
        return sum(self.counts.changes.values())

    def finish(self) -> None:
        """End now, behind the transaction that is being written."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Write until the time is over; an error ends the load and is kept for the caller."""
        started = time.monotonic()
        try:
            with psycopg.connect(self._dsn) as connection:
                column_added = False
                step = 0
                while (elapsed := time.monotonic() - started) < self.planned_s and not self._over.is_set():
                    if not column_added and elapsed > self._column_after_s:
                        connection.execute("ALTER TABLE public.transactions ADD COLUMN channel text")
                        connection.commit()
                        column_added = True
                    self._one(connection, step, column_added)
                    step += 1
                    ahead = self.total / self._rate - (time.monotonic() - started)
                    if ahead > 0:
                        time.sleep(ahead)
        except BaseException as error:  # noqa: BLE001 - a thread's error belongs to whoever waits for it
            self.error = error
        self.elapsed_s = time.monotonic() - started

    def _one(self, connection: psycopg.Connection, step: int, column_added: bool) -> None:
        """One source transaction of about fifty changes."""
        inserts, updates = 20, 20
        first = self._next_id
        changed = {"transactions": 0, "customers": 0}
        bounds = {"first": first, "last": first + inserts - 1, "customers": self._customers}
        changed["transactions"] += connection.execute(_TRANSACTIONS, bounds).rowcount
        spread = {"n": updates, "step": step, "rows": self._rows}
        changed["transactions"] += connection.execute(
            "UPDATE public.transactions SET amount = amount + 1 WHERE id IN "
            "(SELECT 1 + ((%(step)s::bigint * %(n)s + k) * 7919) %% %(rows)s FROM generate_series(1, %(n)s) k)",
            spread,
        ).rowcount
        changed["transactions"] += connection.execute(
            "DELETE FROM public.transactions WHERE id IN "
            "(SELECT 1 + ((%(step)s::bigint * 5 + k) * 104729) %% %(rows)s FROM generate_series(1, 5) k)",
            spread,
        ).rowcount
        changed["customers"] += connection.execute(
            "UPDATE public.customers SET credit = credit + 1, tier = 'gold' WHERE id = 1 + %(step)s::bigint %% %(c)s",
            {"step": step, "c": self._customers},
        ).rowcount
        if step % 10 == 3:  # a key change is a delete and an insert downstream
            changed["transactions"] += connection.execute(
                "UPDATE public.transactions SET id = -id WHERE id = %s", (first,)
            ).rowcount
        if column_added:
            changed["transactions"] += connection.execute(
                "UPDATE public.transactions SET channel = 'web' WHERE id BETWEEN %s AND %s",
                (first + 1, first + 3),
            ).rowcount
        self._next_id += inserts
        if step % 10 == 7:
            connection.rollback()
            self.counts.rolled_back += 1
            return
        connection.commit()
        self.counts.transactions += 1
        for table, count in changed.items():
            self.counts.changes[table] += count
