"""What travels: records and payloads as bytes, and a device's way to the model store.

Nothing here trusts what it reads; no module here opens a connection by itself.
"""
