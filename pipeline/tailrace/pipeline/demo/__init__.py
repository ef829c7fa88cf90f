"""`tailrace demo`: the quickstart pipeline on a real Postgres, under load and kills, with a verdict."""
