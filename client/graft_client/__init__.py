import graft_origin

# Flower loads its app from an app's own folder, which may hold a graft.py.
graft_origin.put_first()
