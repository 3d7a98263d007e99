"""What operators say in the mesh's zone."""
