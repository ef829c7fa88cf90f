"""What runs inside PyFlink's environment, started by path: only the standard library, PyFlink and each other."""
