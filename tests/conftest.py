"""Makes ``fakes`` importable from every room of the tests."""
