"""From the mesh's domain alone to the best of its servers."""
