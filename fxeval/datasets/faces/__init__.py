"""Images of faces: folders, manifests, alignment to a crop, and maps moved between crops."""
