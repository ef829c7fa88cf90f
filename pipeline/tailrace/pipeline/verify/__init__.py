"""`tailrace verify`: every table compared with the source, row by row and column by column."""
