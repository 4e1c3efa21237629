"""Models whose true saliency maps are known."""
