"""What the broker counts about itself, and how Prometheus reads it.

`histogram`, `requests` are on the way of every request and cost about a microsecond of it; everything else is
computed when somebody asks (`families`).
"""
