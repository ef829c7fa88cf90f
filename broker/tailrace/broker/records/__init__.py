"""Record batches, version 2: layout, checks, compression, records.  No I/O.

`batch` is the header and the checksum, `record` the records of control paths as Python objects, `compression`
the codecs, `columnar*` whole batches to and from columns by compiled loops.
"""
