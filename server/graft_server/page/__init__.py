"""The operator's page: a deployment in a browser, live and without a way to change anything."""
