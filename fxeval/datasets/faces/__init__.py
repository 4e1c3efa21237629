"""Images of faces: folders, manifests, alignment to a crop, maps between crops."""
