"""The clients' own test suites, as their packages carry them, against our broker: `make interop`."""
