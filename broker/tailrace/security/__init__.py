"""Who asks, and what they may: principals, SASL, TLS, ACLs and the one authorizer, quotas.

Nothing here knows a socket or a topic: the broker asks, this package decides.  What must outlive the process
(ACLs, SCRAM credentials, quotas) is in the broker's SQLite metadata, written by `store`.
"""
