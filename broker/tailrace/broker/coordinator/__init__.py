"""Group, offset and transaction coordinators: state machines that are told the time and own no socket."""
