"""The keys that the mesh's zone is signed by."""
